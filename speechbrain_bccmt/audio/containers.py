"""What libsndfile cannot read, decoded by FFmpeg's libraries (PyAV): m4a, webm, amr, the sound of a video, mp3.

Headers may only estimate the length, so it is counted by decoding once. Reading is sequential.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

# File endings searched for in folders, in addition to libsndfile's.
ENDINGS = (".m4a", ".aac", ".mp4", ".mov", ".webm", ".mkv", ".amr", ".3gp", ".wma")

# Programs disagree on whether the packet that holds the packet count counts itself.
_CUT_PACKETS = 2


class ContainerFile:
    """A file opened for reading, with the part of `soundfile.SoundFile`'s interface that this package uses.

    Parameters
    ----------
    source : str, Path or file object
        The file.
    kind : str or None
        FFmpeg's name of the format, if known; None: FFmpeg detects it.
    codec : str
        Name to report for a codec that FFmpeg does not know.

    Raises
    ------
    ValueError
        If it is not audio, is damaged or has an unsupported codec; or if PyAV is not installed.

    Examples
    --------
    >>> import av
    >>> path = getfixture("tmp_path") / "a.m4a"
    >>> with av.open(str(path), "w") as container:
    ...     stream = container.add_stream("aac", rate=16000, layout="mono")
    ...     frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    ...     frame.sample_rate = 16000
    ...     _ = [container.mux(packet) for packet in (*stream.encode(frame), *stream.encode(None))]
    >>> with ContainerFile(path) as file:
    ...     file.samplerate, file.channels, file.read(100).shape
    (16000, 1, (100, 1))
    """

    def __init__(self, source: str | os.PathLike | BinaryIO, kind: str | None = None, codec: str = ""):
        av = _import_av()
        self._rest = np.zeros((0, 1), np.float32)
        self._promised = _xing_frames(source) if kind == "mp3" else 0
        try:
            named = os.fspath(source) if isinstance(source, str | os.PathLike) else source
            self._container = av.open(named, format=kind, metadata_errors="ignore")
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"not readable as audio, or truncated: {_reason(error)}") from None
        streams = self._container.streams.audio
        if not streams:
            self._container.close()
            raise ValueError("holds no sound")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise ValueError(f"its codec{f' ({codec})' if codec else ''} is not supported")
        # mp4 and its relatives list their packets.
        self._promised = self._promised or self._stream.frames
        self._blocks = self._decode()
        try:
            self._fill(1)
            self.samplerate, self.channels = self._stream.codec_context.sample_rate, self._rest.shape[1]
            if not len(self._rest):
                raise ValueError("holds no samples")
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> ContainerFile:
        return self

    def __exit__(self, *details) -> None:
        self._container.close()

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """Read the next samples, (frames or fewer at the end, channels), float32, full scale 1."""
        self._fill(frames)
        found, self._rest = self._rest[:frames], self._rest[frames:]
        return found

    def seek(self, frames: int) -> None:
        """Skip the first samples of a file that has not been read yet."""
        while frames:
            skipped = len(self.read(min(frames, 2**20)))
            if not skipped:
                raise ValueError("ends before the samples asked for")
            frames -= skipped

    def _fill(self, wanted: int) -> None:
        parts, held = [self._rest], len(self._rest)
        while held < wanted and (block := next(self._blocks, None)) is not None:
            parts = [block] if not held else [*parts, block]
            held += len(block)
        self._rest = np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _decode(self) -> Iterator[np.ndarray]:
        """Yield the samples of each decoded frame; raise if the file ends before its table says it does."""
        av, convert, packets = _import_av(), None, 0
        is_mp3 = self._stream.codec_context.name.startswith("mp3")
        try:
            for packet in self._container.demux(self._stream):
                packets += packet.size > 0
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    if not is_mp3:
                        raise
                    continue  # tags, and frames whose beginning was cut off, which every player skips
                for frame in frames:
                    if convert is None:
                        convert = av.AudioResampler(
                            format="fltp", layout=frame.layout, rate=frame.sample_rate
                        )
                    for part in convert.resample(frame):
                        yield part.to_ndarray().T
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"damaged, or truncated: {_reason(error)}") from None
        if packets < self._promised - _CUT_PACKETS * is_mp3:
            raise ValueError(f"truncated: {packets} of its {self._promised} packets are in the file")


def _import_av():
    """Import PyAV on demand: it costs 60 ms and 25 MB, and most recordings do not need it."""
    try:
        import av
    except ImportError:
        raise ValueError(
            "m4a, mp3, webm and the sound of films need FFmpeg's libraries: pip install 'bccmt-runtime[containers]'"
        ) from None
    return av


def _xing_frames(path: str | os.PathLike) -> int:
    """Return the packet count in the tag of an mp3 file, 0 if it has none."""
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:  # its length is in four bytes of seven bits
            file.seek(10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        first = file.read(256)
    for name in (b"Xing", b"Info"):
        if (place := first.find(name)) >= 0 and first[place + 7 : place + 8] and first[place + 7] & 1:
            return int.from_bytes(first[place + 8 : place + 12], "big")
    return 0


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
