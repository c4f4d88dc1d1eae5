"""Recordings in folders."""

from __future__ import annotations

import os

from speechbrain_bccmt.audio.containers import ENDINGS as ENDINGS_OF_CONTAINERS

# File endings searched for in folders: what libsndfile decodes, then what FFmpeg does.
ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", *ENDINGS_OF_CONTAINERS)


def find_recordings(folder: str | os.PathLike) -> list[str]:
    """List the recordings in a folder and its subfolders, by file ending; hidden files are left out.

    Parameters
    ----------
    folder : str or Path
        The folder. Links to folders are followed, each folder once.

    Returns
    -------
    list of str
        Paths that begin with `folder`, sorted.

    Raises
    ------
    FileNotFoundError
        If there is no recording.
    PermissionError
        If a folder may not be read: the list would be incomplete.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav"):
    ...     (folder / name).touch()
    >>> [os.path.basename(path) for path in find_recordings(folder)]
    ['a.FLAC', 'b.wav']
    """
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_fail):
        folders.sort()
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder already searched, perhaps one above it
            folders.clear()
            continue
        seen.add(real)
        found += [
            os.path.join(parent, name)
            for name in names
            if name.lower().endswith(ENDINGS) and not name.startswith(".")
        ]
    if not found:
        raise FileNotFoundError(f"{folder}: the folder holds no recording ({', '.join(ENDINGS)})")
    return sorted(found)


def _fail(error: OSError) -> None:
    raise error
