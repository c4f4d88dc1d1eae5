"""Files that appear whole or not at all, so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


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
            message = f"no space left to write {path}: free some, or write elsewhere. Old files are kept"
            raise OSError(errno.ENOSPC, message) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_together(contents: dict[Path, str], seal: Path, seal_content: str) -> None:
    """Write several text files that are only valid together.

    Everything is written under temporary names first: until that has succeeded, the old files stay as they
    are. Then the old seal is removed, each file is renamed, and the new seal comes last; so whoever finds a
    seal finds the set that belongs to it, wherever the process was killed.

    Parameters
    ----------
    contents : dict
        File to its text.
    seal : Path
        The file whose presence tells that the set is complete.
    seal_content : str
        Its text.

    Raises
    ------
    OSError
        Where a file cannot be written; the old files are untouched.
    """
    with contextlib.ExitStack() as stack:
        temporaries = {}
        for path, text in [*contents.items(), (seal, seal_content)]:
            temporaries[path] = stack.enter_context(temporary_sibling(path))
            with open(temporaries[path], "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        seal.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
