"""Standard error of the command line: one-line errors, and no output from C libraries."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator


def one_line(error: Exception) -> str:
    r"""Return an error's message without line breaks; other whitespace stays, as paths may contain repeated spaces.

    Examples
    --------
    >>> one_line(ValueError("a  b.wav:\n  too short"))
    'a  b.wav: too short'
    """
    return re.sub(r"\s*[\r\n]\s*", " ", str(error).strip())


@contextlib.contextmanager
def mute_libraries() -> Iterator[None]:
    """Discard what libraries write to standard error past Python, while Python's own output still appears.

    libmpg123 writes several lines about each damaged mp3 file there; the raised error says as much.
    BCCMT_DEBUG=1 keeps them.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    if os.environ.get("BCCMT_DEBUG"):
        os.close(kept)
        yield
        return
    ours = sys.stderr
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        ours.flush()
        os.dup2(null, 2)
        if _descriptor(ours) == 2:
            sys.stderr = open(
                kept, "w", buffering=1, encoding=ours.encoding, errors=ours.errors, closefd=False
            )
        yield
    finally:
        with contextlib.suppress(OSError):  # full or closed
            sys.stderr.flush()
        sys.stderr = ours
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _descriptor(stream) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # a stream in memory, as in tests
        return None
