"""Voice activity detection by silero-vad: the only place that decides what is speech."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from speechbrain_bccmt.audio import recording
from speechbrain_bccmt.audio.hum import remove_hum
from speechbrain_bccmt.audio.levels import level_and_noise
from speechbrain_bccmt.audio.recording import Chunk, equal_parts
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.audio.silero import RATE, speech_probabilities, speech_stretches

# Padding before and after speech, and the pause that ends it. Shorter ones cost accuracy on clean speech, which the
# models were trained on with its pauses: docs/recordings.md.
PAD_SECONDS, PAUSE_SECONDS = 0.4, 0.8
# Less than this does not count as speech: a short word is little longer.
MIN_SPEECH_SECONDS = 0.1
# The detector hears less below -40 dBFS and above full scale, and front ends have a floor; for both reasons, the
# loudest 100 ms are brought to -20 dBFS.
_LOUDEST, _LEVEL_SECONDS = 0.1, 0.1


def find_speech(wav: np.ndarray, rate: int) -> list[tuple[int, int]]:
    """Find the speech in a waveform, whatever its level.

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,), float32.
    rate : int
        Sample rate in Hz.

    Returns
    -------
    list of (int, int)
        First sample of each stretch of speech, and the one after its last, in order and without overlap.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random(16000, np.float32)
    >>> find_speech(np.zeros(16000, np.float32), 16000), find_speech(noise, 16000)
    ([], [])
    """
    heard = resample(wav, rate, RATE)
    gain = level_gain(heard, RATE)
    if not gain:
        return []
    return stretches_of(speech_probabilities(heard * gain), len(wav), rate)


def stretches_of(probabilities: np.ndarray, n_samples: int, rate: int) -> list[tuple[int, int]]:
    """Find the speech in `n_samples` at `rate` in Hz from its probabilities, in the form of `find_speech`."""
    seconds = (MIN_SPEECH_SECONDS, PAUSE_SECONDS, PAD_SECONDS)
    heard = -(-n_samples * RATE // rate)
    found = speech_stretches(probabilities, heard, *(round(RATE * value) for value in seconds))
    stretches = ((start * rate // RATE, stop * rate // RATE) for start, stop in found)
    return [(start, min(stop, n_samples)) for start, stop in stretches]


def level_gain(wav: np.ndarray, rate: int) -> float:
    """Return the gain that brings a waveform to the working level; 0 if it is silent."""
    size = min(len(wav), round(_LEVEL_SECONDS * rate))
    loudest = wav[: len(wav) // size * size].reshape(-1, size).std(axis=1, dtype=np.float64).max()
    return float(_LOUDEST / loudest) if loudest else 0.0


def keep_speech(chunks: Iterable[Chunk], rate: int) -> Iterator[Chunk]:
    """Join the speech of a recording, without hum, and cut it into new chunks.

    Parameters
    ----------
    chunks : iterable of Chunk
        Chunks of the recording, one or more.
    rate : int
        Their sample rate in Hz.

    Yields
    ------
    Chunk
        Speech alone, brought to one level, at most `recording.MAX_CHUNK_SECONDS` of it; `seconds` is the length of the
        recording that it comes from, `audible_seconds` that of the speech. For a recording without speech, its first
        chunk unchanged, with `audible_seconds` 0. Memory use does not grow with the recording.

    Examples
    --------
    >>> chunks = [Chunk.from_waveform(np.random.rand(16000).astype(np.float32), 16000) for _ in range(3)]
    >>> [(chunk.seconds, chunk.audible_seconds) for chunk in keep_speech(chunks, 16000)]
    [(3.0, 0.0)]
    """
    joiner = SpeechJoiner(rate)
    for chunk in chunks:
        yield from joiner.add(chunk)
    yield from joiner.finish()


class SpeechJoiner:
    """`keep_speech` for a recording whose chunks arrive one by one.

    Parameters
    ----------
    rate : int
        Their sample rate in Hz.
    """

    def __init__(self, rate: int):
        self._rate = rate
        self._speech, self._first = np.zeros(0, np.float32), None
        self._seconds, self._clipped, self._cancelled, self._hum = 0.0, 0.0, False, 0
        self._level, self._noise_ratio = -math.inf, math.inf

    def add(self, chunk: Chunk) -> Iterator[Chunk]:
        """Take a chunk, and yield the chunks of speech that it fills."""
        longest = int(recording.MAX_CHUNK_SECONDS * self._rate)
        self._first = chunk if self._first is None else self._first
        wav, mains = remove_hum(chunk.wav, self._rate)
        stretches = find_speech(wav, self._rate)
        if stretches:
            level, ratio = level_and_noise(wav, self._rate)
            self._level, self._noise_ratio = max(self._level, level), min(self._noise_ratio, ratio)
        self._speech = np.concatenate([self._speech, *(wav[slice(*part)] for part in stretches)])
        self._hum, self._cancelled = self._hum or mains, self._cancelled or chunk.cancelled
        self._seconds += chunk.seconds
        self._clipped += chunk.clipped_share * chunk.seconds
        while len(self._speech) >= 2 * longest:
            yield self._cut(self._speech[:longest], 1.0)
            # A copy, so that the yielded part can be freed.
            self._speech, self._first = self._speech[longest:].copy(), chunk
            self._seconds = self._clipped = 0.0

    @property
    def pending_seconds(self) -> float:
        """Length of the speech that does not fill a chunk yet."""
        return len(self._speech) / self._rate

    def pending(self, *more: np.ndarray) -> list[Chunk]:
        """Return the chunks of speech that would remain if the recording ended with `more` speech, (samples,) each."""
        speech = np.concatenate([self._speech, *more])
        parts = equal_parts(speech, self._rate) if len(speech) else ()
        return [self._cut(part, 1 / len(parts)) for part in parts]

    def finish(self) -> Iterator[Chunk]:
        """Yield the remaining chunks, if there were any chunks at all."""
        parts = self.pending()
        if not parts and self._first is not None:
            parts = [replace(self._cut(self._first.wav, 1.0), wav=self._first.wav, audible_seconds=0.0)]
        yield from parts

    def _cut(self, wav: np.ndarray, share: float) -> Chunk:
        whole = share * self._seconds
        clipped_share = share * self._clipped / whole if whole else 0.0
        return Chunk(
            wav * level_gain(wav, self._rate),
            whole,
            len(wav) / self._rate,
            clipped_share,
            self._cancelled,
            hum=self._hum,
            level=self._level,
            noise_ratio=self._noise_ratio,
        )
