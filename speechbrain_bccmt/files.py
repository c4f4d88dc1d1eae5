"""Atomic file writes: a killed process or a full disk never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path


def _is_alive(process_id: int) -> bool:
    """Return whether a process with this id is running on this machine."""
    try:
        os.kill(process_id, 0)  # sends nothing, but checks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is someone else's
        pass
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes. Not on Windows, where `os.kill` really kills.

    Only those of this machine, as another one may be writing to a shared folder.
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
    """Yield a temporary name in the folder of `path` to write to; the file is removed at the end if it still exists.

    The same folder means the same file system, so `os.replace` from it is atomic. Machine and process id in
    the name keep two runs from writing to one file, and tell the next run which files are abandoned, to be
    removed. The suffix stays, as soundfile relies on it.

    Parameters
    ----------
    path : Path
        The final file. Its folder is created.

    Yields
    ------
    Path
        The temporary name.

    Raises
    ------
    OSError
        If the disk is full or the folder is not writable; the message names `path`.
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
            # The temporary name would mean nothing to the user.
            raise type(error)(error.errno, f"{error.strerror}, cannot write {path}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_together(contents: dict[Path, str], manifest: Path, manifest_content: str) -> None:
    """Write several text files that are only valid together.

    Everything is written under temporary names first; until that has succeeded, the old files stay untouched. Then
    the old manifest is removed, each file is renamed, and the new manifest comes last. A manifest thus always goes
    with its complete set of files, whenever the process was killed.

    Parameters
    ----------
    contents : dict
        Maps each file to its text.
    manifest : Path
        The file whose presence shows that the set is complete.
    manifest_content : str
        Its text.

    Raises
    ------
    OSError
        If a file cannot be written; the old files are untouched.
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
