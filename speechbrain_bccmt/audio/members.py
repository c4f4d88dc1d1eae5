"""Recordings inside a tar file, read by offset."""

from __future__ import annotations

import functools
import io
import os
import weakref
from typing import NamedTuple


class Member(NamedTuple):
    """A recording inside a file, which `read_crop` takes in place of a path.

    Attributes
    ----------
    file : str
        The tar file.
    offset, size : int
        Where its bytes are.
    name : str
        In the tar file, for messages.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> _ = path.write_bytes(b"headbodytail")
    >>> member = Member(str(path), 4, 4, "a.wav")
    >>> member.open().read(), member.label == f"a.wav in {path}"
    (b'body', True)
    """

    file: str
    offset: int
    size: int
    name: str

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.name} in {self.file}"

    def open(self) -> io.BytesIO:
        """Read its bytes.

        Raises
        ------
        OSError
            If the tar file cannot be read.
        ValueError
            If it ends before.
        """
        content = os.pread(_descriptor(self.file, os.getpid()).number, self.size, self.offset)
        if len(content) < self.size:
            raise ValueError("the tar file is truncated")
        return io.BytesIO(content)


class _Descriptor:
    """A file that is open until nobody uses it."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)
        if hasattr(os, "posix_fadvise"):
            # All of it will be read, in an order that only a shuffle of some thousand utterances disturbs. So the
            # system fetches it at the speed of the disk, not a file and a wait at a time.
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_WILLNEED)


# Those that a shuffle window spans, and some. A forked process opens its own.
@functools.lru_cache(maxsize=16)
def _descriptor(path: str, process: int) -> _Descriptor:
    return _Descriptor(path)
