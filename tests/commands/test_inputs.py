"""What the commands share: the model that they ask for, and work on one recording after another."""

import io

import click
import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.commands.inputs import run_each

# Each with as many arguments as it needs.
COMMANDS = {
    "verify": "a.wav b.wav",
    "enroll": "voices.db ada a.wav",
    "identify": "voices.db a.wav",
    "listen": "voices.db ada",
    "voiceprints reenroll": "voices.db new.db",
    "embed": "a.wav",
    "attention": "a.wav",
    "calibrate": ".",
    "adapt": "out a.wav",
    "info": "",
    "demo": "",
    "export hub": "out",
    "export web": "out",
    "export onnx": "out",
}


def run(*arguments, **options):
    result = CliRunner().invoke(cli.main, arguments, **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def takes_model(command, name):
    """Yield the names of the commands that have -m/--model."""
    for sub, child in getattr(command, "commands", {}).items():
        yield from takes_model(child, f"{name} {sub}")
    if any("--model" in parameter.opts for parameter in command.params):
        yield name


def test_every_command_that_takes_a_model_takes_it_as_an_option():
    context = click.Context(cli.main)
    found = [n for name in cli.COMMANDS for n in takes_model(cli.main.get_command(context, name), name)]
    assert sorted(found) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_shipped_model_is_the_default(name):
    command = cli.main
    for part in name.split():
        command = command.get_command(click.Context(command), part)
    (option,) = (parameter for parameter in command.params if "--model" in parameter.opts)
    assert option.default == "tiny" and option.envvar == "BCCMT_MODEL"


@pytest.mark.parametrize("name", ["verify", "info", "embed"])
def test_the_environment_names_a_model(name, tmp_path):
    gone = str(tmp_path / "gone")
    result = run(*name.split(), *COMMANDS[name].split(), env={"BCCMT_MODEL": gone})
    assert result.exit_code == 2 and gone in result.stderr and result.stderr.count("\n") == 1


def fail_on_b(path):
    if path == "b":
        raise ValueError("b:\n too short")
    return path.upper()


def test_errors_are_raised_or_reported(capsys):
    with pytest.raises(ValueError, match="too short"):
        list(run_each(fail_on_b, "abc", "Working"))
    assert list(run_each(fail_on_b, "abc", "Working", skip_errors=True)) == [
        ("a", "A"),
        ("b", None),
        ("c", "C"),
    ]
    assert capsys.readouterr() == ("", "error: b: too short\n")


@pytest.mark.parametrize(
    ("terminal", "quiet", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_bar_is_shown_to_a_terminal(monkeypatch, terminal, quiet, shown):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", stream)
    assert list(run_each(str.upper, "ab", "Working", quiet)) == [("a", "A"), ("b", "B")]
    assert ("Working" in stream.getvalue()) == shown
