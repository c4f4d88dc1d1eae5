"""Crops of recordings, read by offset, for training on more files than fit in memory."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_bccmt.audio.headers import open_decoder
from speechbrain_bccmt.audio.members import Member
from speechbrain_bccmt.audio.resampling import ZERO_CROSSINGS, resample
from speechbrain_bccmt.audio.waveforms import mix_down


def read_crop(
    path: str | Path | Member, rate: int, start: int, stop: int, offset: int, n_samples: int
) -> np.ndarray:
    """Read a stretch of an utterance by offset: the same samples as `read_mono`, without reading the rest.

    Parameters
    ----------
    path : str, Path or Member
        The file, or a member of a tar file.
    rate : int
        The sample rate wanted in Hz.
    start, stop : int
        The utterance, in samples of the file.
    offset, n_samples : int
        The stretch, in samples at `rate`, counted from the beginning of the utterance.

    Returns
    -------
    numpy.ndarray
        (n_samples,) or fewer at the utterance's end, float32, channels averaged.

    Raises
    ------
    ValueError
        If the file cannot be read, or holds no samples there, or NaN or infinite ones; the message names it.

    Examples
    --------
    >>> from speechbrain_bccmt.audio.recording import read_mono
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.random.randn(44100) / 10, 44100)
    >>> whole, crop = read_mono(path, 16000), read_crop(path, 16000, 0, 44100, offset=5000, n_samples=800)
    >>> np.allclose(crop, whole[5000:5800], atol=1e-6)
    True
    """
    name = path.label if isinstance(path, Member) else path
    try:
        with open_decoder(path) as file:
            factor = math.gcd(file.samplerate, rate)
            up, down = rate // factor, file.samplerate // factor
            # Sample k * up of the result is sample k * down of the file. To each side the filter reaches
            # ZERO_CROSSINGS * max(up, down) samples at the common multiple of both rates.
            context = 0 if up == down else math.ceil(ZERO_CROSSINGS * max(up, down) / (up * down)) + 1
            first = max(0, offset // up - context)
            last = math.ceil((offset + n_samples) / up) + context
            begin, end = start + first * down, min(stop, start + last * down)
            file.seek(begin)
            samples = file.read(end - begin, dtype="float32", always_2d=True)
            file_rate = file.samplerate
    except (soundfile.SoundFileError, RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"cannot read {name} from sample {start}: {error}") from None
    if not len(samples):
        raise ValueError(
            f"no audio in {name} from sample {begin} on: remove the file or prepare the data again"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds NaN or infinite samples: remove the file and prepare the data again")
    wav = resample(mix_down(samples)[0], file_rate, rate)
    return wav[offset - first * up :][:n_samples]
