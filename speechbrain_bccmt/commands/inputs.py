"""What several commands share: the model, the recordings named on the command line, and what is told of them."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from speechbrain_bccmt.audio import find_recordings


def load_model(source: str, device: str | None = None):
    """Load the model of a command, on the CPU where no other device is asked for.

    Parameters
    ----------
    source : str
        A hub folder, the output folder of a training, or a HuggingFace hub id.
    device : str or None
        Such as "cuda".

    Returns
    -------
    SpeakerVerification
        The model.
    """
    from speechbrain_bccmt.inference import SpeakerVerification

    return SpeakerVerification.from_hparams(source, run_opts={"device": device or "cpu"})


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
            found = [line.rstrip("\r\n") for line in sys.stdin]
            found = [line for line in found if line.strip()]
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


def tell_warnings(warnings: Iterable[str]) -> None:
    """Print warnings to standard error, a line each."""
    for text in warnings:
        click.echo(f"warning: {text}", err=True)


def one_line(error: Exception) -> str:
    """Give an error's message without its line breaks."""
    return " ".join(str(error).split())
