"""Utterances on disk in VoxCeleb's layout, `wav/<speaker>/<session>/<utterance>.<ext>`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".m4a")
# Where the unpacked archives of VoxCeleb1 and VoxCeleb2 have their speakers.
_ROOTS = tuple(f"{part}{kind}" for part in ("", "dev/", "test/") for kind in ("wav", "aac", "m4a"))


class AudioFile(NamedTuple):
    """A file found: where it is, and what shows a change."""

    path: str
    size: int
    mtime_ns: int


def folder_of(path: str, folders: Sequence[str | os.PathLike]) -> int:
    """Return the index of the data folder that a file is in; -1 if in none, such as a converted file.

    Examples
    --------
    >>> folder_of("/data/b/wav/ada/1.wav", ["/data/a", "/data/b"]), folder_of("/data/bb/1.wav", ["/data/a", "/data/b"])
    (1, -1)
    """
    roots = (os.path.join(os.path.abspath(os.path.expanduser(folder)), "") for folder in folders)
    return next((number for number, root in enumerate(roots) if path.startswith(root)), -1)


def _speaker_roots(data_folder: str) -> list[str]:
    """Return the folders inside a data folder that hold one folder per speaker."""
    folder = os.path.abspath(os.path.expanduser(data_folder))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no data folder {folder}")
    roots = [path for path in (os.path.join(folder, root) for root in _ROOTS) if os.path.isdir(path)]
    if not roots and os.path.basename(folder) in ("wav", "aac", "m4a"):
        roots = [folder]
    if not roots:
        expected = "wav/<speaker>/<session>/<utterance>.wav"
        raise FileNotFoundError(f"{folder} is not laid out as {expected}: it has none of {', '.join(_ROOTS)}")
    return roots


def _walk(root: str, extensions: Collection[str]) -> Iterator[tuple[str, str, AudioFile]]:
    """Yield utterance id, extension and file of each audio file inside the speakers' folders."""
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                # Hidden: resource forks of macOS, and interrupted conversions.
                if entry.name.startswith("."):
                    continue
                stem, dot, ending = entry.name.rpartition(".")
                extension = dot + ending.lower()
                if extension in extensions and prefix:
                    if entry.is_file():
                        status = entry.stat()
                        file = AudioFile(entry.path, status.st_size, status.st_mtime_ns)
                        yield prefix + stem, extension, file
                elif entry.is_dir():
                    pending.append((entry.path, f"{prefix}{entry.name}/"))


def find_utterances(
    data_folders: Sequence[str], extensions: Sequence[str] = EXTENSIONS
) -> dict[str, AudioFile]:
    """List the utterances of one or several folders in VoxCeleb's layout.

    Parameters
    ----------
    data_folders : sequence of str
        Each holds `wav/` (or `aac/`, or these inside `dev/` and `test/`), or is that folder itself.
    extensions : sequence of str
        The audio files to list. If one folder holds an utterance in several formats (as after a conversion in place),
        the format listed first is used.

    Returns
    -------
    dict
        Utterance id to its file, sorted by id.

    Raises
    ------
    FileNotFoundError
        If a folder is missing, is not in the layout, or holds no audio.
    ValueError
        If two folders hold the same utterance: which one is meant is not guessed.

    Examples
    --------
    >>> session = getfixture("tmp_path") / "wav" / "id1" / "session"
    >>> session.mkdir(parents=True)
    >>> (session / "00001.flac").touch()
    >>> list(find_utterances([str(session.parents[2])]))
    ['id1/session/00001']
    """
    rank = {extension.lower(): i for i, extension in enumerate(extensions)}
    roots = dict.fromkeys(root for folder in data_folders for root in _speaker_roots(folder))
    found: dict[str, AudioFile] = {}
    clashes = []
    for root in roots:
        here: dict[str, tuple[int, AudioFile]] = {}
        for utterance, extension, file in _walk(root, rank):
            if utterance not in here or rank[extension] < here[utterance][0]:
                here[utterance] = rank[extension], file
        if not here:
            raise FileNotFoundError(f"no audio ({', '.join(rank)}) in the speakers' folders of {root}")
        clashes += [
            f"{found[utterance].path} and {here[utterance][1].path}" for utterance in found.keys() & here
        ]
        found.update((utterance, file) for utterance, (_, file) in here.items())
    if clashes:
        raise ValueError(
            f"{len(clashes)} utterances are in two data folders, as {min(clashes)}: leave out one folder"
        )
    return {utterance: found[utterance] for utterance in sorted(found)}
