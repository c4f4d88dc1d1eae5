"""What several commands share: the model, the recordings named on the command line, and the warnings about them."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from speechbrain_bccmt.audio.recording import find_recordings

model_option = click.option(
    "-m",
    "--model",
    envvar="BCCMT_MODEL",
    metavar="MODEL",
    show_envvar=True,
    help="Published folder, output folder of a training, or HuggingFace hub id (owner/model).",
)
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Where to compute, such as cuda."
)


def require_model(source: str | None) -> str:
    """Return the model that was named, or raise `click.UsageError`."""
    if source is None:
        raise click.UsageError("no model: give one by -m/--model, or by the environment variable BCCMT_MODEL")
    return source


def load_model(source: str | None, device: str = "cpu"):
    """Load the model of a command.

    Parameters
    ----------
    source : str or None
        A published folder, the output folder of a training, or a HuggingFace hub id.
    device : str
        Such as "cuda".

    Returns
    -------
    SpeakerVerification
        The model.

    Raises
    ------
    click.UsageError
        If no model is given.
    ValueError
        If there is no such device here.
    """
    source = require_model(source)
    import torch

    from speechbrain_bccmt.inference.verification import SpeakerVerification

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    return SpeakerVerification.from_hparams(source, run_opts={"device": device})


def expand_inputs(arguments: Iterable[str]) -> list[str]:
    """List the recordings that arguments name: files, folders, globs, and `-` for a list on standard input.

    Parameters
    ----------
    arguments : iterable of str
        Of the command line. A folder stands for the recordings in it and in its subfolders, by their ending; a
        name with `*`, `?` or `[` that is no file for those that it matches; `-` for the lines of standard input.

    Returns
    -------
    list of str
        Paths, each once, in the order of the arguments and sorted within each.

    Raises
    ------
    FileNotFoundError
        If a folder or a glob holds no recording.
    ValueError
        If there is none at all.

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
            # A byte order mark, as editors of Windows write it, is no part of the first name.
            lines = [line.rstrip("\r\n").removeprefix("\ufeff") for line in sys.stdin or ()]
            found = [line for line in lines if line.strip()]
        elif os.path.isdir(argument):
            found = find_recordings(argument)
        elif glob.has_magic(argument) and not os.path.exists(argument):
            found = sorted(path for path in glob.glob(argument, recursive=True) if Path(path).is_file())
            if not found:
                raise FileNotFoundError(f"{argument}: matches no file")
        paths.update(dict.fromkeys(found))
    if not paths:
        raise ValueError("no recordings are named: give files, folders, globs, or a list on standard input")
    return list(paths)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print warnings to standard error, a line each."""
    for text in warnings:
        click.echo(f"warning: {text}", err=True)


def embed_all(verification, paths: Iterable[str], quiet: bool = False) -> dict:
    """Embed recordings, each once, as `embed_each` does: path to `EmbeddedUtterance`. The first error is raised."""
    embedded = {}
    for path, outcome in embed_each(verification, dict.fromkeys(paths), quiet):
        if isinstance(outcome, Exception):
            raise outcome
        embedded[path] = outcome
    return embedded


def embed_each(verification, paths: Iterable[str], quiet: bool = False) -> Iterator[tuple]:
    """Embed recordings one by one, with a progress bar where standard error is a terminal.

    Parameters
    ----------
    verification : SpeakerVerification
        The model.
    paths : iterable of str
        The recordings.
    quiet : bool
        Show no bar.

    Yields
    ------
    tuple
        The path, and an `EmbeddedUtterance` or the error that came instead. What is printed in between does not
        meet the bar.
    """
    from tqdm import tqdm

    paths = list(paths)
    with tqdm(total=len(paths), desc="Embedding", unit="file", disable=quiet or None) as bar:
        for path in paths:
            try:
                outcome = verification.embed_file(path)
            except (OSError, ValueError) as error:
                outcome = error
            with tqdm.external_write_mode():
                yield path, outcome
            bar.update()
