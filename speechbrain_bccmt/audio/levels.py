"""What a recording has lost, measured without a reference: audible seconds, level, clipped tops, bandwidth."""

from __future__ import annotations

import numpy as np

_FRAME_SECONDS = 0.02
# A frame is audible down to this far below the loud frames (95th percentile).
AUDIBLE_DB = 40.0
# A steady noise varies by less than this between its loud and quiet frames (95th and 5th percentile): white noise by
# 1.2 dB, noise that 16 bits have rounded to little by 2.5 dB; of 300 one-word clips the steadiest varies by 4.7 dB.
STEADY_DB = 3.0
# Over fewer frames a voice can be as steady.
_STEADY_FRAMES = 25
# Share of the loudest sample: an offset leaves that much behind in float32.
_ROUNDING = 1e-6
# A flat top is this many consecutive samples at the extreme value. In a wave with fewer than this many steps from its
# middle to its top (few bits), rounding makes many tops flat.
_FLAT_SAMPLES, _STEPS = 3, 16

# Bands of 250 Hz, from frames of 512 samples; a band is in use if its loud frames (95th percentile) are at most this
# many dB below those of the loudest band.
_BAND_HZ, _BAND_FRAME, _BAND_DB = 250.0, 512, 55.0


def audible_seconds(wav: np.ndarray, rate: int) -> float:
    """Return how much of a waveform is audible, whatever its level, in frames of 20 ms without their offset.

    A frame is audible if it is less than `AUDIBLE_DB` below the loud frames. Digital silence is not audible, nor is a
    recording of steady noise alone.

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,).
    rate : int
        Sample rate in Hz.

    Returns
    -------
    float
        Seconds; 0 is silence.

    Examples
    --------
    >>> tone = np.sin(np.arange(16000) / 10) * np.linspace(0.1, 1, 16000)
    >>> audible_seconds(tone, 16000), audible_seconds(tone / 1000, 16000)
    (1.0, 1.0)
    >>> audible_seconds(np.full(16000, 0.5), 16000), audible_seconds(np.random.rand(16000), 16000)
    (0.0, 0.0)
    >>> round(audible_seconds(np.concatenate([np.zeros(16000), tone]), 16000), 2)
    1.0
    """
    levels = _frame_levels(wav, rate)
    heard = levels[levels > _ROUNDING * np.abs(wav).max()]
    if not len(heard):
        return 0.0
    quiet, loud = np.percentile(heard, [5, 95])
    if len(heard) >= _STEADY_FRAMES and loud < quiet * 10 ** (STEADY_DB / 20):
        return 0.0
    return float((heard > loud * 10 ** (-AUDIBLE_DB / 20)).sum() / len(levels)) * len(wav) / rate


def level_and_noise(wav: np.ndarray, rate: int) -> tuple[float, float]:
    """Measure how loud a recording is, and how far its loud frames (95th percentile) are above its quiet ones (5th).

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,), with its pauses, where noise shows.
    rate : int
        Sample rate in Hz.

    Returns
    -------
    level : float
        In dBFS; minus infinity for silence.
    ratio : float
        In dB; infinity if pauses are digital silence. For speech in noise, about the signal-to-noise ratio plus 6 dB.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 0.001, 32000)
    >>> level, ratio = level_and_noise(noise + np.repeat([0.1, 0.0], 16000) * np.sin(np.arange(32000)), 16000)
    >>> round(level), round(ratio)
    (-23, 37)
    """
    quiet, loud = np.percentile(_frame_levels(wav, rate), [5, 95])
    with np.errstate(divide="ignore", invalid="ignore"):
        level, noise = 20 * np.log10([loud, quiet])
    return float(level), float(level - noise) if loud else 0.0


def _frame_levels(wav: np.ndarray, rate: int) -> np.ndarray:
    size = max(1, min(round(rate * _FRAME_SECONDS), len(wav)))
    return wav[: len(wav) // size * size].reshape(-1, size).std(axis=1, dtype=np.float64)


def flat_tops(samples: np.ndarray) -> int:
    """Count the samples in flat tops, as left by clipping at any level.

    Parameters
    ----------
    samples : numpy.ndarray
        (samples, channels), as decoded: resampling removes flat tops.

    Returns
    -------
    int
        Samples where a channel stays at its highest or lowest value for three samples or more.

    Examples
    --------
    >>> wave = np.sin(np.arange(1000) / 10)[:, None]
    >>> flat_tops(5 * wave), flat_tops(wave.clip(-0.5, 0.5)) > 500
    (0, True)
    """
    flat = np.zeros(len(samples), dtype=bool)
    for channel in samples.T:
        for top in (channel.max(initial=0), channel.min(initial=0)):
            at_top = channel == top
            runs = np.convolve(at_top, np.ones(_FLAT_SAMPLES), "valid") == _FLAT_SAMPLES
            if runs.any() and _steps_below(channel, top) >= _STEPS:
                for shift in range(_FLAT_SAMPLES):
                    flat[shift : shift + len(runs)] |= runs
    return int(flat.sum())


def _steps_below(channel: np.ndarray, top: float) -> int:
    """Count the values that a channel takes between its middle and an extreme."""
    middle = np.median(channel)
    return len(np.unique(channel[(channel > middle) if top > middle else (channel < middle)]))


def hann(size: int) -> np.ndarray:
    """Return the periodic Hann window (size,), float32."""
    return np.hanning(size + 1)[:-1].astype(np.float32)


def bandwidth(wav: np.ndarray, rate: int) -> float:
    """Measure the frequency up to which a recording holds sound.

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,).
    rate : int
        Sample rate in Hz.

    Returns
    -------
    float
        In Hz, a multiple of 250; half the sample rate if all bands are in use, or if it is too short or silent.

    Examples
    --------
    >>> from speechbrain_bccmt.audio.resampling import resample
    >>> wave = np.random.default_rng(0).normal(0, 1, 16000).astype(np.float32)
    >>> bandwidth(wave, 16000), bandwidth(resample(wave[:8000], 8000, 16000), 16000) <= 5000
    (8000.0, True)
    """
    frames = wav[: len(wav) // _BAND_FRAME * _BAND_FRAME].reshape(-1, _BAND_FRAME)
    n_bands = int(rate / 2 / _BAND_HZ)
    if not len(frames) or not n_bands or not wav.any():
        return rate / 2
    power = np.square(np.abs(np.fft.rfft(frames * hann(_BAND_FRAME))))
    edges = np.round(np.arange(n_bands) * _BAND_HZ * _BAND_FRAME / rate).astype(int)
    loud = np.percentile(np.add.reduceat(power, edges, axis=1), 95, axis=0)
    return float(_BAND_HZ * (1 + np.flatnonzero(loud >= loud.max() * 10 ** (-_BAND_DB / 10))[-1]))
