"""Recordings inside a tar file, read by offset."""

from __future__ import annotations

import functools
import io
import os
import weakref
from typing import NamedTuple


class Member(NamedTuple):
    """A recording inside a tar file, which `read_crop` accepts in place of a path.

    Attributes
    ----------
    file : str
        The tar file.
    offset, size : int
        Where its bytes are.
    name : str
        Its name in the tar file, for messages.

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
        """Its name in messages."""
        return f"{self.name} in {self.file}"

    def open(self) -> io.BytesIO:
        """Read its bytes.

        Raises
        ------
        OSError
            If the tar file cannot be read.
        ValueError
            If it ends too early.
        """
        content = os.pread(_descriptor(self.file, os.getpid()).number, self.size, self.offset)
        if len(content) < self.size:
            raise ValueError("the tar file is truncated")
        return io.BytesIO(content)


class _Descriptor:
    """A file that stays open as long as it is used."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.number)
        if hasattr(os, "posix_fadvise"):
            # All of it will be read, in order but for a shuffle of some thousand utterances. This lets the system
            # fetch it at the speed of the disk, instead of waiting for one file at a time.
            os.posix_fadvise(self.number, 0, 0, os.POSIX_FADV_WILLNEED)


# As many as a shuffle window spans, and some more. A forked process opens its own.
@functools.lru_cache(maxsize=16)
def _descriptor(path: str, process: int) -> _Descriptor:
    return _Descriptor(path)
