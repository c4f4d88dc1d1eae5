"""Finding the samples of a wav file: pipes write no true length, and some recorders write several data chunks."""

from __future__ import annotations

import io
import os
import struct
from typing import NamedTuple

HEAD = 1024  # bytes of a wav file to read at once; the samples nearly always begin within them
_CHUNK_HEAD = struct.Struct("<4sI").unpack_from  # name, length
_FORMAT = struct.Struct("<HHIIHH").unpack_from  # tag, channels, rate, bytes a second, block, bits
_PLAIN_TAGS = {1, 3, 0xFFFE}  # integers, floats, and either in the extensible form
# Lengths that programs write when they cannot know the true one; a header's bytes may be subtracted.
_UNKNOWN, _HEADER_BYTES = (2**31, 2**32, 2_000_000_000), 4096


class WavFile(NamedTuple):
    """Facts about a wav file that are needed before it is decoded.

    Attributes
    ----------
    tag : int
        Number of its codec.
    sample_rate : int
        In Hz.
    block : int
        Bytes per sample of all channels; 0 if the codec is not plain samples.
    begin : int
        Position of the first chunk's data.
    pieces : tuple of (int, int)
        Position and length of each stretch of samples, in bytes.
    as_written : bool
        Whether the header says the same: one chunk of data, of a length above 0.
    """

    tag: int
    sample_rate: int
    block: int
    begin: int
    pieces: tuple[tuple[int, int], ...]
    as_written: bool

    @property
    def frames(self) -> int:
        """Samples per channel, if the samples are plain."""
        return sum(length for _, length in self.pieces) // self.block


def read_wav(path: str | os.PathLike, head: bytes, size: int) -> WavFile | None:
    """Locate the samples of a wav file.

    Parameters
    ----------
    path : str or Path
        The file.
    head : bytes
        Its first `HEAD` bytes.
    size : int
        Size of the file in bytes.

    Returns
    -------
    WavFile or None
        None if it is not a wav file, or is damaged.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is shorter than its header promises. A length as written by pipes promises nothing.

    Examples
    --------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 800, 16000)
    >>> wav = read_wav(path, path.read_bytes()[:HEAD], 1644)
    >>> wav.frames, wav.pieces
    (800, ((44, 1600),))
    """
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position, found = 12, None
    while position + 8 <= size:
        name, length = _CHUNK_HEAD(_read(path, head, position, 8))
        position += 8
        if name == b"fmt ":
            values = _read(path, head, position, 16)
            if len(values) < 16:
                return None
            tag, channels, rate, _, block, bits = _FORMAT(values)
            # If compressed (ADPCM, GSM and others) or padded, bytes do not give the number of samples.
            plain = tag in _PLAIN_TAGS and not bits % 8 and block == channels * bits // 8
            found = tag, rate, block if plain else 0
        elif name == b"data":
            return found and WavFile(*found, position, *_pieces(path, head, size, position, length))
        elif not name.isascii():
            return None
        position += length + length % 2
    return None


def _read(path: str | os.PathLike, head: bytes, position: int, count: int) -> bytes:
    if position + count <= len(head):
        return head[position : position + count]
    with open(path, "rb") as file:
        file.seek(position)
        return file.read(count)


def _pieces(path, head: bytes, size: int, begin: int, length: int) -> tuple[tuple, bool]:
    """Return the stretches of samples, the first of them at `begin`, and whether they are as written."""
    rest = size - begin
    if length > rest:
        if not any(mark - _HEADER_BYTES <= length <= mark for mark in _UNKNOWN):
            raise ValueError(f"truncated: {length} bytes of samples promised, {max(rest, 0)} in the file")
        return ((begin, rest),), True  # decoders read to the end of the file
    pieces, position = [(begin, length)], begin + length + length % 2
    while position + 8 <= size:
        name, next_length = _CHUNK_HEAD(_read(path, head, position, 8))
        if not (name.isascii() and name.decode().isprintable()):
            break
        position += 8
        if name == b"data":
            if next_length > size - position:
                raise ValueError(
                    f"truncated: {next_length} bytes of samples promised, {size - position} in the file"
                )
            pieces.append((position, next_length))
        position += next_length + next_length % 2
    if length == 0 and position != size:  # samples follow whose number was never written
        return ((begin, rest),), False
    pieces = [piece for piece in pieces if piece[1]] or pieces[:1]
    return tuple(pieces), len(pieces) == 1 and length > 0


class JoinedWav(io.RawIOBase):
    """A wav file as it should have been written, with one chunk of data, for a decoder to read.

    Parameters
    ----------
    path : str or Path
        The file.
    wav : WavFile
        Where its samples are.
    """

    def __init__(self, path: str | os.PathLike, wav: WavFile):
        self._file = open(path, "rb")
        total = sum(length for _, length in wav.pieces)
        self._head = self._file.read(wav.begin - 4) + struct.pack("<I", min(total, 2**32 - 1))
        self._parts = [(0, len(self._head), None)]  # position here, length, position in the file
        for begin, length in wav.pieces:
            here = self._parts[-1][0] + self._parts[-1][1]
            self._parts.append((here, length, begin))
        self._size, self._position = self._parts[-1][0] + self._parts[-1][1], 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer) -> int:
        """Fill a buffer, and return the number of bytes read."""
        view, done = memoryview(buffer).cast("B"), 0
        for here, length, there in self._parts:
            inside = self._position - here
            if 0 <= inside < length and done < len(view):
                count = min(length - inside, len(view) - done)
                if there is None:
                    part = self._head[inside : inside + count]
                else:
                    self._file.seek(there + inside)
                    part = self._file.read(count)
                view[done : done + len(part)] = part
                done, self._position = done + len(part), self._position + len(part)
        return done

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
