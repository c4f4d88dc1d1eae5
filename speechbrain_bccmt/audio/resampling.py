"""Resampling by a polyphase filter, as one matrix product per block of samples."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

# Zero crossings of the filter to each side of its centre, and the Kaiser window's shape: those of
# `scipy.signal.resample_poly`, which gives the same samples to within float32 rounding.
ZERO_CROSSINGS, KAISER_BETA = 10, 5.0
# Output samples per row of a product: with fewer, neighbours share too little of their input.
_ROW_SAMPLES = 64
# Values laid out for a product at a time: 4 MB.
_BLOCK_VALUES = 2**20


def resample(wav: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Change the sample rate.

    torchaudio's filter takes memory in proportion to the product of the reduced rates, 6 GB from 44,101 to 16,000 Hz.

    Parameters
    ----------
    wav : numpy.ndarray
        (..., samples), float32.
    rate, wanted : int
        Sample rates in Hz, before and after.

    Returns
    -------
    numpy.ndarray
        (..., ceil(samples * wanted / rate)), float32. With g the greatest common divisor of the rates, its sample
        k * wanted / g lies where sample k * rate / g of `wav` does.

    Examples
    --------
    >>> resample(np.zeros((2, 44101), np.float32), 44101, 16000).shape
    (2, 16000)
    """
    if rate == wanted:
        return wav
    factor = math.gcd(rate, wanted)
    up, down = wanted // factor, rate // factor
    rows = [_resample(row, up, down) for row in wav.reshape(-1, wav.shape[-1])]
    return np.stack(rows).reshape(*wav.shape[:-1], -1)


@lru_cache(maxsize=4)
def _filter(up: int, down: int) -> np.ndarray:
    """Return the low-pass filter at the common multiple of both rates, (2 * half + 1,), float32."""
    largest = max(up, down)
    half = ZERO_CROSSINGS * largest
    taps = np.sinc(np.arange(-half, half + 1) / largest) * np.kaiser(2 * half + 1, KAISER_BETA)
    return (up * taps / taps.sum()).astype(np.float32)


def _resample(wav: np.ndarray, up: int, down: int) -> np.ndarray:
    """Resample (samples,) by `up` / `down`, which have no common divisor.

    Sample n of the result is the sum over m of wav[m] * taps[n * down - m * up + half]. All n that differ by a multiple
    of `up` share their taps: a row of the product holds `size` neighbours, the next row those `period` later.
    """
    taps = _filter(up, down)
    half, n_samples = len(taps) // 2, -(-len(wav) * up // down)
    repeats = max(1, _ROW_SAMPLES // up)
    period, step = repeats * up, repeats * down
    result = np.empty((-(-n_samples // period), period), np.float32)
    before = half // up + 1
    padded = np.zeros(before + len(result) * step + 2 * before + 2, np.float32)
    padded[before : before + len(wav)] = wav[: len(padded) - before]
    size = period if period < 8 * _ROW_SAMPLES else _ROW_SAMPLES
    for start in range(0, period, size):
        places = np.arange(start, min(start + size, period)) * down
        first, last = (places[0] - half) // up, (places[-1] + half) // up + 1
        index = places - np.arange(first, last)[:, None] * up + half
        weights = np.where((index >= 0) & (index < len(taps)), taps.take(index, mode="clip"), 0)
        windows = np.lib.stride_tricks.sliding_window_view(padded[before + first :], last - first)[::step]
        rows = max(1, _BLOCK_VALUES // (last - first))
        for row in range(0, len(result), rows):
            block = np.ascontiguousarray(windows[row : min(row + rows, len(result))])
            np.matmul(block, weights, out=result[row : row + rows, start : start + size])
    return result.reshape(-1)[:n_samples]


class StreamResampler:
    """`resample` for a waveform that arrives in parts of any size.

    Parameters
    ----------
    rate, wanted : int
        Sample rates in Hz, before and after.

    Examples
    --------
    >>> wav = np.random.default_rng(0).random(48000, np.float32)
    >>> resampler = StreamResampler(44100, 16000)
    >>> parts = [resampler.feed(part) for part in np.split(wav, [5, 10000])] + [resampler.finish()]
    >>> np.allclose(np.concatenate(parts), resample(wav, 44100, 16000), atol=1e-6)
    True
    """

    def __init__(self, rate: int, wanted: int):
        self._rates, factor = (rate, wanted), math.gcd(rate, wanted)
        self._up, self._down = wanted // factor, rate // factor
        # How far the filter reaches to each side, in common periods of both rates.
        reach = ZERO_CROSSINGS * max(self._up, self._down) / (self._up * self._down)
        self._context = 0 if self._up == self._down else math.ceil(reach) + 1
        self._held, self._before = np.zeros(0, np.float32), 0  # initial periods that were already returned

    def feed(self, wav: np.ndarray) -> np.ndarray:
        """Return the samples that `wav` (samples,), float32, completes."""
        self._held = np.concatenate([self._held, wav])
        ready = len(self._held) // self._down - self._context
        if ready <= self._before:
            return np.zeros(0, np.float32)
        found = resample(self._held, *self._rates)[self._before * self._up : ready * self._up]
        kept = max(0, ready - self._context)
        self._held, self._before = self._held[kept * self._down :].copy(), ready - kept
        return found

    def finish(self) -> np.ndarray:
        """Return the remaining samples."""
        return resample(self._held, *self._rates)[self._before * self._up :]
