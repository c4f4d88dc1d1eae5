"""Shared parts of the commands: options, the model, recordings named on the command line, and a progress bar.

Heavy packages are imported where they are used: `bccmt COMMAND --help` and misuse do not need torch.
"""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from speechbrain_bccmt.commands.streams import one_line
from speechbrain_bccmt.models import DEFAULT

device_option = click.option(
    "--device", default="cpu", metavar="DEVICE", show_default=True, help="Device, such as cuda."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
model_option = click.option(
    "-m",
    "--model",
    envvar="BCCMT_MODEL",
    metavar="MODEL",
    default=DEFAULT,
    show_default=True,
    show_envvar=True,
    help="Shipped model, published folder, output folder of a training, HuggingFace hub id (owner/model), or ONNX file "
    "from another toolkit.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "onnx", "torch"]),
    default="auto",
    show_default=True,
    help="Run the model with ONNX Runtime, PyTorch, or (auto) ONNX Runtime on the CPU if the model ships a graph.",
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress bar.")
vad_option = click.option(
    "--vad/--no-vad",
    default=True,
    show_default=True,
    help="Embed only speech, found by voice activity detection, or whole recordings, as trial lists expect.",
)


def check_threshold(ctx, param, value: float | None) -> float | None:
    """Reject a threshold that is not a finite number."""
    if value is not None and not math.isfinite(value):
        raise click.UsageError(f"--threshold is {value}, expected a finite number")
    return value


threshold_option = click.option(
    "--threshold",
    type=float,
    callback=check_threshold,
    help="Lowest score that counts as the same speaker. Default: the model's own.",
)


def load_model(source: str, device: str = "cpu", vad: bool = True, engine: str = "torch"):
    """Load the model of a command: a `Verifier`, which embeds only speech or whole files; see `load_verifier`.

    With the engine torch it is a `SpeakerVerification`, which has the networks. On the CPU a model runs on one thread
    unless OMP_NUM_THREADS is set: more are slower at this size, and much slower next to another busy process.

    Raises
    ------
    OSError, ImportError, ValueError
        If the device does not exist, or the model cannot be loaded.
    """
    from speechbrain_bccmt.inference.loading import load_verifier

    model = load_verifier(source, engine, device, vad)
    if model.engine == "torch" and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(1)
    return model


def expand_inputs(arguments: Iterable[str]) -> list[str]:
    """List the recordings that arguments name: files, folders, globs, and `-` for a list on standard input.

    Parameters
    ----------
    arguments : iterable of str
        A folder stands for the recordings in it and its subfolders, recognised by suffix; a name with `*`, `?` or `[`
        that is not a file, for the files it matches; `-`, for the lines of standard input.

    Returns
    -------
    list of str
        Unique paths, in the order of the arguments and sorted within each.

    Raises
    ------
    FileNotFoundError
        If a folder or a glob yields no recording.
    ValueError
        If there are none at all.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.wav", "a.flac", "notes.txt"):
    ...     (folder / name).touch()
    >>> [os.path.basename(path) for path in expand_inputs([str(folder)])]
    ['a.flac', 'b.wav']
    """
    paths: dict[str, None] = {}
    for argument in arguments:
        found = [argument]
        if argument == "-":
            # Windows editors begin a file with a byte order mark, which is not part of the first name.
            lines = [line.rstrip("\r\n").removeprefix("\ufeff") for line in sys.stdin or ()]
            found = [line for line in lines if line.strip()]
        elif os.path.isdir(argument):
            from speechbrain_bccmt.audio.folders import find_recordings

            found = find_recordings(argument)
        elif glob.has_magic(argument) and not os.path.exists(argument):
            found = sorted(path for path in glob.glob(argument, recursive=True) if Path(path).is_file())
            if not found:
                raise FileNotFoundError(f"{argument}: matches no file")
        paths.update(dict.fromkeys(found))
    if not paths:
        raise ValueError("no recordings are named: give files, folders, globs, or a list on standard input")
    return list(paths)


def check_ending(path: str | None, endings: Iterable[str]) -> None:
    """Raise `click.UsageError` if the suffix of a file to write is not one of `endings`."""
    if path is not None and Path(path).suffix.lower() not in endings:
        raise click.UsageError(f"{path}: its ending is none of {', '.join(endings)}")


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings to standard error, one per line."""
    for text in warnings:
        click.echo(f"warning: {text}", err=True)


def run_each(
    work: Callable, paths: Iterable[str], description: str, quiet: bool = False, skip_errors: bool = False
) -> Iterator[tuple]:
    """Yield each path and its `work(path)`, with a progress bar if standard error is a terminal.

    The caller's output in between does not collide with the bar. With `skip_errors` an unusable recording is reported
    on standard error, with None as its result; otherwise its error is raised.
    """
    from tqdm import tqdm

    paths = list(paths)
    with tqdm(total=len(paths), desc=description, unit="file", disable=quiet or None) as bar:
        for path in paths:
            try:
                result, error = work(path), None
            except (OSError, ValueError) as caught:
                if not skip_errors:
                    raise
                result, error = None, caught
            with tqdm.external_write_mode():
                if error is not None:
                    click.echo(f"error: {one_line(error)}", err=True)
                yield path, result
            bar.update()
