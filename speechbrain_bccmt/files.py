"""Files that appear whole or not at all, so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path


def _is_alive(process_id: int) -> bool:
    """Return whether this machine runs a process of that id."""
    try:
        os.kill(process_id, 0)  # sends nothing, but checks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is someone else's
        pass
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed. On Windows none: `os.kill` is a real kill there.

    Only those of this machine, as in a shared folder another one may be writing.
    """
    if os.name == "nt":
        return
    prefix = f".{platform.node()}-"
    for name in os.listdir(folder):
        process_id, partial, _ = name.removeprefix(prefix).partition(".partial.")
        if name.startswith(prefix) and partial and process_id.isdecimal() and not _is_alive(int(process_id)):
            (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_sibling(path: Path) -> Iterator[Path]:
    """Yield a name in the folder of `path` to write to; removed at the end where it still exists.

    The same folder means the same file system, so `os.replace` from it is atomic. Machine and process id in
    the name keep two runs from writing into one file, and show the next run which files in the folder nobody
    will finish: it removes them. The ending stays, as soundfile goes by it.

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
        With a message that names `path`, where the disk is full, or the folder may not be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    temporary = path.with_name(f".{platform.node()}-{os.getpid()}.partial.{path.name}")
    try:
        yield temporary
    except OSError as error:
        if error.errno == errno.ENOSPC:
            message = f"no space left to write {path}: free some, or write elsewhere. Old files are kept"
            raise OSError(errno.ENOSPC, message) from error
        if error.filename is not None and os.fspath(error.filename) == str(temporary):
            # The name under which it was tried says nothing to anybody.
            raise type(error)(error.errno, f"{error.strerror}, cannot write {path}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_together(contents: dict[Path, str], manifest: Path, manifest_content: str) -> None:
    """Write several text files that are only valid together.

    Everything is written under temporary names first: until that has succeeded, the old files stay as they
    are. Then the old manifest is removed, each file is renamed, and the new manifest comes last; so whoever finds a
    manifest finds the set that belongs to it, wherever the process was killed.

    Parameters
    ----------
    contents : dict
        File to its text.
    manifest : Path
        The file whose presence shows that the set is complete.
    manifest_content : str
        Its text.

    Raises
    ------
    OSError
        Where a file cannot be written; the old files are untouched.
    """
    with contextlib.ExitStack() as stack:
        temporaries = {}
        for path, text in [*contents.items(), (manifest, manifest_content)]:
            temporaries[path] = stack.enter_context(temporary_sibling(path))
            with open(temporaries[path], "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        manifest.unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
