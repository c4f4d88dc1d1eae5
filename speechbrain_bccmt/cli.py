"""The `bccmt` command.

Each command is a module of `speechbrain_bccmt.commands`, imported when it is called: `bccmt --help` does not need
torch. Exit codes: 0 done (or same speaker), 1 different or unknown speaker, 2 misuse or unusable input, 3 a bug in
this package. A signal, such as Ctrl-C, must not be mistaken for a decision: 128 plus its number, as in shells.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import click

from speechbrain_bccmt.commands.streams import mute_libraries, one_line

MISUSE, FAULT, SIGNALLED = 2, 3, 128
COMMANDS = {
    "verify": "Verify that two recordings are of the same speaker.",
    "enroll": "Enrol speakers by name.",
    "identify": "Identify an enrolled speaker.",
    "listen": "Verify a speaker live, from the microphone.",
    "voiceprints": "Move, re-enrol, index and purge stores of voiceprints.",
    "embed": "Embed recordings.",
    "shards": "Pack a corpus into tar files for training.",
    "trials": "Draw a trial list over a corpus.",
    "evaluate": "Evaluate scores or embeddings on a trial list.",
    "attention": "Plot attention maps of recordings.",
    "calibrate": "Fit a threshold on recordings of your own speakers.",
    "adapt": "Fit a model to recordings of your own device, room or language.",
    "models": "List the models that come with the package.",
    "info": "Show a model's size, operations and latency.",
    "export": "Export a trained model to a hub folder, to ONNX, or as a web page.",
    "demo": "Open a web page that enrols, verifies and identifies speakers.",
}


class LazyGroup(click.Group):
    """Command group that imports a command when it is called, and turns errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands, in the order in which users meet them."""
        return list(_installed())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command of this name."""
        if name not in _installed():
            return None
        return getattr(importlib.import_module(f"speechbrain_bccmt.commands.{name}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_installed().items()))

    def invoke(self, ctx: click.Context):
        """Run the command, without the output that its libraries write past Python."""
        try:
            with mute_libraries():
                return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output has closed the pipe, as in `bccmt embed ... | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(SIGNALLED + getattr(signal, "SIGPIPE", 13))

    def main(self, *args, **options):
        """Run the command line and end the process; errors that the user can fix are one line on standard error."""
        try:
            # In standalone mode click itself ends the process, with 1 for Ctrl-C.
            code = super().main(*args, **options | {"standalone_mode": False})
        except click.Abort:
            code = SIGNALLED + signal.SIGINT
        except click.ClickException as error:
            bare = isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ()))
            _show(error.show if bare else lambda error=error: click.echo(_misuse(error), err=True))
            code = MISUSE
        except (OSError, ImportError, ValueError) as error:
            if os.environ.get("BCCMT_DEBUG"):
                _show(traceback.print_exc)
            _show(lambda error=error: click.echo(f"error: {one_line(error)}", err=True))
            code = MISUSE
        except Exception:
            _show(traceback.print_exc)
            _show(
                lambda: click.echo("error: this is a bug in bccmt, please report it with the above", err=True)
            )
            code = FAULT
        sys.exit(code)


def _misuse(error: click.ClickException) -> str:
    """Return one line that says what is wrong with a command line and where to find its help."""
    context = getattr(error, "ctx", None)
    where = f" (see {context.command_path} --help)" if context else ""
    return f"error: {one_line(error.format_message()).removesuffix('.')}{where}"


def _show(write: Callable[[], None]) -> None:
    """Write to standard error; if that is closed or full, the exit code has to do."""
    with contextlib.suppress(OSError, ValueError):
        write()


def _installed() -> dict[str, str]:
    """Return the installed commands: bccmt-runtime has only some of them."""
    folder = Path(__file__).parent / "commands"
    return {name: text for name, text in COMMANDS.items() if (folder / f"{name}.py").is_file()}


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    from importlib.metadata import PackageNotFoundError, version

    for name in ("speechbrain_bccmt", "bccmt-runtime"):
        with contextlib.suppress(PackageNotFoundError):
            click.echo(f"bccmt, version {version(name)} of {name}")
            context.exit()
    context.fail("the package is not installed")


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Lightweight speaker verification.

    Commands use the model shipped with the package. -m/--model names another: a published folder, the output folder of
    a training, or a HuggingFace hub id (owner/model). BCCMT_MODEL names it for all commands; BCCMT_DEBUG=1 shows where
    an error came from.
    """
    # File names need not be valid text; in JSON such bytes are escapes like any other.
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")
    # Only messages that concern the user are shown; results go to standard output, the rest to standard error.
    if not os.environ.get("BCCMT_DEBUG"):
        warnings.filterwarnings("ignore", module=r"(torch|torchaudio|speechbrain|huggingface_hub)(\..*)?")
        logging.getLogger("speechbrain").setLevel(logging.WARNING)
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
