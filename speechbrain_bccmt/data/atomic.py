"""Files that appear whole or not at all, so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO


def no_space_left(path: Path) -> OSError:
    """Return the error to raise when the disk filled up while `path` was written."""
    message = f"no space left to write {path}: free some, or choose another folder. Old files are kept"
    return OSError(errno.ENOSPC, message)


@contextlib.contextmanager
def temporary_sibling(path: Path) -> Iterator[Path]:
    """Yield a name in the folder of `path` to write to; removed at the end where it still exists.

    The same folder means the same file system, so `os.replace` from it is atomic. The process id in the
    name keeps two runs from writing into one file. The ending stays, as ffmpeg and soundfile judge by it.

    Parameters
    ----------
    path : Path
        The file that is to appear. Its folder is created.

    Yields
    ------
    Path
        The temporary name.

    Raises
    ------
    OSError
        With a message that names `path`, where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield temporary
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space_left(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_together(writers: dict[Path, Callable[[TextIO], None]], seal: Path) -> None:
    """Write several text files that are only valid together.

    Everything is written under temporary names first: until that has succeeded, the old files stay as they
    are. Then the old seal is removed, each file is renamed, and the seal comes last; so whoever finds the
    seal finds the set that belongs to it, wherever the process was killed.

    Parameters
    ----------
    writers : dict
        File to the function that writes it, called with the opened text file.
    seal : Path
        The one of the files that tells that the set is complete.

    Raises
    ------
    OSError
        Where a file cannot be written; the old files are untouched.
    """
    with contextlib.ExitStack() as stack:
        temporaries = {}
        for path, write in writers.items():
            temporaries[path] = stack.enter_context(temporary_sibling(path))
            with open(temporaries[path], "w", encoding="utf-8", newline="") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        seal.unlink(missing_ok=True)
        for path in [*(path for path in writers if path != seal), seal]:
            os.replace(temporaries[path], path)
