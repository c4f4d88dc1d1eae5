"""The `bccmt` command: its exit codes and messages, not the work of the single commands."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli


@pytest.fixture
def failing(monkeypatch):
    """Give a function that makes `bccmt info` raise an error."""

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


def test_help_needs_no_torch():
    code = (
        "import sys; from click.testing import CliRunner; from speechbrain_bccmt.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name):
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["info"]])
def test_misuse_ends_with_2(arguments):
    assert CliRunner().invoke(cli.main, arguments).exit_code == 2


@pytest.mark.parametrize("error", [ValueError("a.wav:\n  too short"), OSError("a.wav: too short")])
def test_expected_errors_are_one_line(failing, error):
    failing(error)
    result = CliRunner().invoke(cli.main, ["info"])
    assert result.exit_code == 2
    assert result.stderr == "error: a.wav: too short\n"


def test_unexpected_errors_are_not_hidden(failing):
    failing(RuntimeError("a fault of ours"))
    assert isinstance(CliRunner().invoke(cli.main, ["info"]).exception, RuntimeError)


def test_debugging_shows_where_an_error_came_from(failing, monkeypatch):
    failing(ValueError("wrong"))
    monkeypatch.setenv("BCCMT_DEBUG", "1")
    assert isinstance(CliRunner().invoke(cli.main, ["info"]).exception, ValueError)
