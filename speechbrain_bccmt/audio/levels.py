"""What a recording has lost, measured against the recording itself: what can be heard, clipped tops, its band."""

from __future__ import annotations

import numpy as np

_FRAME_SECONDS = 0.02
# A frame is audible down to this far below the loud ones (their 95th percentile).
AUDIBLE_DB = 40.0
# Levels of a steady noise differ by less between its loud and its quiet frames (95th and 5th percentile): 1.2 dB are
# those of white noise, 2.5 dB of one that 16 bits have rounded to little; of 300 clips of a word the least has 4.7 dB.
STEADY_DB = 3.0
# In fewer frames a voice may be as steady.
_STEADY_FRAMES = 25
# Of the loudest sample: an offset leaves as much behind in float32.
_ROUNDING = 1e-6
# Equal samples one after another at the extreme value make a flat top. So few bits that a wave has a smaller number of
# steps from its middle to its top round many tops flat.
_FLAT_SAMPLES, _STEPS = 3, 16

# Bands of 250 Hz, from frames of 512 samples; one is in use whose loud frames (95th percentile) are at most so far
# below those of the loudest band.
_BAND_HZ, _BAND_FRAME, _BAND_DB = 250.0, 512, 55.0


def audible_seconds(wav: np.ndarray, rate: int) -> float:
    """Return how much of a waveform is audible, whatever its level, in frames of 20 ms without their offset.

    Audible is what lies less than `AUDIBLE_DB` below the loud frames. Digital silence is not, nor is a recording that
    has nothing but a steady noise.

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
    """Measure how loud a recording is, and how far its loud frames (95th percentile) stand above its quiet ones (5th).

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,), with pauses: noise shows in them.
    rate : int
        Sample rate in Hz.

    Returns
    -------
    level : float
        In dBFS; minus infinity for silence.
    ratio : float
        In dB; infinity where pauses are digital silence. Of speech in noise about its signal-to-noise ratio plus 6 dB.

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
    """Count the samples that lie in flat tops, as clipping leaves them, at whatever level.

    Parameters
    ----------
    samples : numpy.ndarray
        (samples, channels), as they were decoded: another rate has no flat tops left.

    Returns
    -------
    int
        Samples where a channel stays at its highest or its lowest value for three samples or more.

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
    """Measure up to which frequency a recording holds sound.

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,).
    rate : int
        Sample rate in Hz.

    Returns
    -------
    float
        In Hz, a multiple of 250; half the sample rate where all is in use, or where it is too short or silent.

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
