"""The `bccmt` command: its exit codes and messages, not the work of the single commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes `bccmt info` raise an error."""

    def make(error):
        @click.command()
        def info():
            raise error

        monkeypatch.setattr(
            cli.LazyGroup, "get_command", lambda self, ctx, name: info if name == "info" else None
        )

    return make


def test_help_lists_every_command():
    result = CliRunner().invoke(cli.main, ["--help"])
    assert result.exit_code == 0
    for name, text in cli.COMMANDS.items():
        assert name in result.output and text.split()[0] in result.output


def test_help_and_misuse_need_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from speechbrain_bccmt.cli import COMMANDS, main\n"
        "for name in COMMANDS: assert CliRunner().invoke(main, [name, '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(main, ['embed']).exit_code == 2\n"
        "assert not {'torch', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_is_the_command_too():
    command = [sys.executable, "-m", "speechbrain_bccmt", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: bccmt [OPTIONS]") and "identify" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (["no-such-command"], "No such command", "main"),
        (["embed", "--thing", "a.wav"], "No such option", "main embed"),
        (["embed", "-m", "model"], "Missing argument 'FILES...'", "main embed"),
        (["identify", "-m", "model"], "Missing argument 'STORE'", "main identify"),
    ],
)
def test_misuse_is_one_line_that_names_the_help(arguments, message, command):
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: {message}") and result.stderr.endswith(
        f" (see {command} --help)\n"
    )


def documented_commands():
    """Yield each `bccmt` command line of the documentation, as its page and arguments."""
    root = Path(__file__).parents[1]
    for page in [root / "README.md", *root.glob("docs/*.md"), *root.glob("recipes/**/*.md")]:
        text = page.read_text(encoding="utf-8")
        for block, inline in re.findall(r"^ *(bccmt [^`\n]+)$|`(bccmt [^`]+)`", text, re.MULTILINE):
            yield page.name, shlex.split(block or inline, comments=True)[1:]


def test_documented_commands_are_understood():
    found = list(documented_commands())
    assert {page for page, _ in found} >= {"README.md", "results.md", "other_runtimes.md"} and len(found) > 10
    for page, arguments in found:
        command = cli.main
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            name, *arguments = arguments
            command = command.get_command(click.Context(command), name)
            assert command is not None, (page, name)
        if not arguments or isinstance(command, click.Group):
            continue
        _, rest, _ = command.make_parser(click.Context(command)).parse_args(list(arguments))
        assert rest == [], (page, arguments)


def test_no_arguments_show_the_help():
    result = CliRunner().invoke(cli.main, [])
    assert result.exit_code == 2 and "Commands:" in result.output


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name):
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["embed"]])
def test_misuse_ends_with_2(arguments):
    assert CliRunner().invoke(cli.main, arguments).exit_code == 2


@pytest.mark.parametrize("error", [ValueError("a.wav:\n  too short"), OSError("a.wav: too short")])
def test_expected_errors_are_one_line(failing, error):
    failing(error)
    result = CliRunner().invoke(cli.main, ["info"])
    assert result.exit_code == 2
    assert result.stderr == "error: a.wav: too short\n"


def test_bugs_are_reported_and_are_no_decision(failing):
    failing(RuntimeError("a fault of ours"))
    result = CliRunner().invoke(cli.main, ["info"])
    assert result.exit_code == 3  # 1 would say that the speakers differ
    assert "Traceback" in result.stderr and "a fault of ours" in result.stderr and "report" in result.stderr


def test_being_stopped_is_no_decision(failing):
    failing(KeyboardInterrupt())
    result = CliRunner().invoke(cli.main, ["info"])
    assert result.exit_code == 130 and "Traceback" not in result.stderr


PRINT = """
import sys
import click
from speechbrain_bccmt import cli

@click.command()
def info():
    {body}

cli.LazyGroup.get_command = lambda self, ctx, name: info
cli.main(["info"])
"""


def run_shell(body, redirections):
    code = PRINT.format(body=body)
    script = f'"$0" -c "$1" {redirections}; exit ${{PIPESTATUS[0]}}'
    command = ["bash", "-c", script, sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.name == "nt", reason="asks a shell of Unix")
@pytest.mark.parametrize(
    "body, redirections, code, told",
    [
        ("[click.echo('x' * 1000) for _ in range(1000)]", "| head -c 1", 141, ""),
        ("click.echo('x')", "> /dev/full", 2, "error: [Errno 28] No space left on device\n"),
        ("raise ValueError('wrong')", "2> /dev/full", 2, ""),
        ("raise RuntimeError('wrong')", "2> /dev/full", 3, ""),
        ("raise ValueError('wrong')", "2>&-", 2, ""),
        ("click.get_current_context().exit(1)", ">&- 2>&-", 1, ""),
    ],
)
def test_what_becomes_of_the_output_is_no_decision(body, redirections, code, told):
    if "/dev/full" in redirections and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    done = run_shell(body, redirections)
    assert (done.returncode, done.stderr) == (code, told)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_help_to_a_full_disk():
    script = '"$0" -m speechbrain_bccmt.cli --help > /dev/full'
    done = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_debugging_shows_where_an_error_came_from(failing, monkeypatch):
    failing(ValueError("wrong"))
    monkeypatch.setenv("BCCMT_DEBUG", "1")
    result = CliRunner().invoke(cli.main, ["info"])
    assert result.exit_code == 2 and "Traceback" in result.stderr and "in info" in result.stderr
