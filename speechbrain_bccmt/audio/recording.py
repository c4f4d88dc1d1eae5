"""Recordings on disk: decoded, checked, mixed to one channel and resampled, in chunks of bounded size.

libsndfile decodes wav, flac, ogg, opus and more; FFmpeg decodes mp3 and what libsndfile cannot read. What they let
pass is refused here: files shorter than their header promises, NaN and infinite samples, anything but regular files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_bccmt.audio.containers import ContainerFile
from speechbrain_bccmt.audio.headers import open_decoder, read_header
from speechbrain_bccmt.audio.levels import audible_seconds, flat_tops
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.audio.waveforms import mix_down

# What `Recording.open` accepts, in Hz. Outside this range, a header is more likely damaged than true.
SAMPLE_RATES = (1_000, 768_000)
# A larger share of samples in flat tops is clipping. Speech of five corpora, at any level and in 8 bits, A-law or
# mu-law, stays below it; clipped at two thirds of its 99.9th percentile, 98 % of the clips are above it.
CLIPPED_SHARE = 1e-3
# Longer recordings are embedded in equal chunks of at most this length: attention over time is quadratic in length,
# and chunks bound time and memory. What that does to error rates: docs/latency.md.
MAX_CHUNK_SECONDS = 30.0
# Values decoded at a time: many channels or a high rate take no more memory.
_BLOCK_VALUES = 2**22


@dataclass(frozen=True)
class Chunk:
    """A stretch of a recording.

    Attributes
    ----------
    wav : numpy.ndarray
        (samples,), float32, mono, at the requested rate.
    seconds : float
        Length of the stretch.
    audible_seconds : float
        How much of it is audible, see `audible_seconds`; for a chunk of speech alone, the speech.
    clipped_share : float
        Share of its samples in flat tops in any channel, see `flat_tops`.
    cancelled : bool
        Whether its channels cancel each other, in which case one of them was taken.
    bandwidth : float
        Frequency in Hz up to which it holds sound, once measured; infinity before.
    hum : int
        Frequency in Hz of the hum that was filtered out; 0 if none was.
    level, noise_ratio : float
        For a chunk of speech alone, what `level_and_noise` measured in its recording, in dB.
    """

    wav: np.ndarray
    seconds: float
    audible_seconds: float
    clipped_share: float
    cancelled: bool = False
    bandwidth: float = math.inf
    hum: int = 0
    level: float = math.nan
    noise_ratio: float = math.nan

    @classmethod
    def from_waveform(cls, wav: np.ndarray, rate: int) -> Chunk:
        """Make a chunk of a waveform (samples,) in memory, mono, at `rate` in Hz."""
        clipped = flat_tops(wav[:, None]) / len(wav)
        return cls(wav, len(wav) / rate, audible_seconds(wav, rate), clipped)


@dataclass(frozen=True)
class Recording:
    """An audio file that can be read.

    Attributes
    ----------
    path : Path
        The file.
    frames : int
        Samples per channel.
    sample_rate : int
        In Hz.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.random.randn(16000, 2) / 10, 8000)
    >>> recording = Recording.open(path)
    >>> recording.seconds, [tuple(chunk.wav.shape) for chunk in recording.chunks(16000, 1.5)]
    (2.0, [(16000,), (16000,)])
    """

    path: Path
    frames: int
    sample_rate: int

    @classmethod
    def open(cls, path: str | Path) -> Recording:
        """Check a file and read its header.

        Raises
        ------
        OSError
            If it is missing, is a folder or may not be read.
        ValueError
            If it is not audio, is truncated, holds no samples or has an impossible sample rate.
        """
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder, expected an audio file")
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file")
        if not path.is_file():  # a pipe would be waited for forever
            raise OSError(f"{path}: is no regular file")
        if path.suffix.lower() == ".raw":
            raise ValueError(
                f"{path}: cannot be read: soundfile takes .raw for samples without header; rename it"
            )
        try:
            frames, sample_rate = read_header(str(path))
        except PermissionError as error:
            raise PermissionError(f"{path}: may not be read (permission denied)") from error
        except (soundfile.SoundFileError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        return cls(path, frames, check_rate(sample_rate, f"{path}: its sample rate"))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    def chunks(
        self,
        rate: int,
        max_seconds: float | None = None,
        start: int = 0,
        stop: int | None = None,
        equal: bool = True,
    ) -> Iterator[Chunk]:
        """Read the recording chunk by chunk, in memory that does not grow with its length.

        Parameters
        ----------
        rate : int
            The sample rate wanted in Hz.
        max_seconds : float or None
            The longest chunk; None: `MAX_CHUNK_SECONDS`.
        start, stop : int
            Part to read, in samples of the file.
        equal : bool
            Whether all chunks have the same length, to within a sample; False: all but the last have the greatest
            length, as in a stream whose end is not known.

        Yields
        ------
        Chunk
            Channels averaged, resampled if `rate` differs from the file's.

        Raises
        ------
        ValueError
            If fewer samples can be decoded than the header promises, or one is NaN or infinite.
        """
        stop = self.frames if stop is None else stop
        if not 0 <= start < stop <= self.frames:
            raise ValueError(f"{self.path}: has {self.frames} samples, cannot be read from {start} to {stop}")
        total = stop - start
        max_seconds = MAX_CHUNK_SECONDS if max_seconds is None else max_seconds
        n_chunks = max(1, math.ceil(total / (max_seconds * self.sample_rate)))
        try:
            with open_decoder(self.path) as file:
                if start:
                    file.seek(start)
                longest = total if n_chunks == 1 else math.ceil(max_seconds * self.sample_rate)
                for number in range(n_chunks):
                    begin, end = (
                        total * edge // n_chunks if equal else min(total, longest * edge)
                        for edge in (number, number + 1)
                    )
                    yield self._read_chunk(file, end - begin, rate)
        except soundfile.SoundFileError as error:
            raise ValueError(f"{self.path}: cannot be decoded: {error}") from error

    def beginning(self, rate: int, seconds: float) -> Chunk:
        """Read its first `seconds`, or all of a shorter one, at `rate` in Hz; errors are those of `chunks`."""
        stop = min(self.frames, int(seconds * self.sample_rate))
        return next(self.chunks(rate, math.inf, stop=stop))

    def _read_chunk(self, file: soundfile.SoundFile | ContainerFile, wanted: int, rate: int) -> Chunk:
        block = max(1, _BLOCK_VALUES // file.channels)
        parts, clipped, cancelled, left = [], 0, False, wanted
        while left:
            samples = file.read(min(block, left), dtype="float32", always_2d=True)
            if not len(samples):
                raise ValueError(
                    f"{self.path}: truncated or damaged, {left} of {wanted} samples cannot be decoded"
                )
            if not np.isfinite(samples).all():
                raise ValueError(f"{self.path}: holds NaN or infinite samples")
            clipped += flat_tops(samples)
            mono, lost = mix_down(samples)
            parts.append(mono)
            cancelled |= lost
            left -= len(samples)
        wav = resample(np.concatenate(parts), self.sample_rate, rate)
        return Chunk(wav, wanted / self.sample_rate, audible_seconds(wav, rate), clipped / wanted, cancelled)


def read_mono(path: str | Path, rate: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Read a recording, or a part of it, in one piece.

    Parameters
    ----------
    path : str or Path
        The file.
    rate : int
        The sample rate wanted in Hz; a file of another rate is resampled.
    start, stop : int
        Part to read, in samples of the file.

    Returns
    -------
    numpy.ndarray
        (samples,), float32, channels averaged.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, see `Recording`; the message begins with its path.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros((8000, 2)), 8000)
    >>> read_mono(path, 16000).shape
    (16000,)
    """
    return next(Recording.open(path).chunks(rate, math.inf, start, stop)).wav


def equal_parts(wav: np.ndarray, rate: int) -> list[np.ndarray]:
    """Cut a waveform in memory into the fewest equal parts of at most `MAX_CHUNK_SECONDS`.

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,).
    rate : int
        Sample rate in Hz.

    Returns
    -------
    list of numpy.ndarray
        (samples,) each, of the same length to within a sample.

    Examples
    --------
    >>> [len(part) for part in equal_parts(np.zeros(70_001), rate=1000)]
    [23334, 23334, 23333]
    """
    return np.array_split(wav, max(1, math.ceil(len(wav) / (MAX_CHUNK_SECONDS * rate))))


def check_rate(rate: float, name: str) -> int:
    """Return a sample rate as a whole number of Hz, or raise a ValueError that begins with `name`."""
    if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1] or rate != int(rate):
        raise ValueError(
            f"{name} is {rate} Hz, expected a whole number from {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]}"
        )
    return int(rate)
