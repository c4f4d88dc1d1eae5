"""What libsndfile cannot read, decoded by FFmpeg's libraries (PyAV): m4a, webm, amr, the sound of a video.

A container's header may guess its length, so that it is counted by decoding once. Reading is sequential.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import av
import numpy as np

from speechbrain_bccmt.audio.headers import AudioHeader

# Of files that are found in folders beside those of libsndfile.
ENDINGS = (".m4a", ".aac", ".mp4", ".mov", ".webm", ".mkv", ".amr", ".3gp", ".wma")


class ContainerFile:
    """A file opened for reading, with the part of `soundfile.SoundFile`'s interface that this package uses.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    ValueError
        If it is no audio, or damaged.

    Examples
    --------
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

    def __init__(self, path: str | os.PathLike):
        self._path, self._rest = path, np.zeros((0, 1), np.float32)
        try:
            self._container = av.open(os.fspath(path), metadata_errors="ignore")
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"not readable as audio, or truncated: {_reason(error)}") from None
        streams = self._container.streams.audio
        if not streams:
            self._container.close()
            raise ValueError("holds no sound")
        self._stream = streams[0]
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
        """Skip the first samples of a file that was not read yet."""
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
        """Yield the samples of each decoded frame, and raise where the file ends before its table says."""
        convert, packets = None, 0
        try:
            for packet in self._container.demux(self._stream):
                packets += packet.size > 0
                for frame in packet.decode():
                    if convert is None:
                        convert = av.AudioResampler(
                            format="fltp", layout=frame.layout, rate=frame.sample_rate
                        )
                    for part in convert.resample(frame):
                        yield part.to_ndarray().T
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"damaged, or truncated: {_reason(error)}") from None
        # Only mp4 and its kin list their packets.
        if packets < self._stream.frames:
            raise ValueError(f"truncated: {packets} of its {self._stream.frames} packets are in the file")


def read_container_header(path: str | os.PathLike) -> AudioHeader:
    """Count the samples of a file by decoding it, in constant memory.

    Raises
    ------
    ValueError
        If it is no audio, damaged, truncated, or holds no samples.
    """
    frames = 0
    with ContainerFile(path) as file:
        while block := len(file.read(2**16)):
            frames += block
        return AudioHeader(frames, file.samplerate)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
