"""Mains hum in a recording: found by its steady spectral lines, and filtered out."""

from __future__ import annotations

import numpy as np

from speechbrain_bccmt.audio.levels import hann

# In Hz; lines up to the tenth harmonic.
_MAINS, _HARMONICS = (50, 60), 10
# In dB: the lowest line of a hum is at least this far above its surroundings, and at most this far below the whole.
# Clean speech of six corpora passes neither, except some recordings that do hum; hum 10 dB below speech passes both.
_PROMINENT_DB, _LOUD_DB = 25.0, -20.0
# Its other lines are filtered from this height on.
_LINE_DB = 10.0
# Width of a notch in Hz. Its ringing decays to a thousandth within the reflection added at both ends.
_NOTCH_HZ, _REFLECTED_SECONDS = 4.0, 0.6


def remove_hum(wav: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Filter loud hum out of a recording; recordings without it are returned unchanged.

    Parameters
    ----------
    wav : numpy.ndarray
        (samples,).
    rate : int
        Sample rate in Hz.

    Returns
    -------
    wav : numpy.ndarray
        (samples,), unchanged if there is no hum or less than 1.5 s.
    mains : int
        50 or 60 Hz; 0 if there is no hum.

    Examples
    --------
    >>> time = np.arange(32000) / 16000
    >>> noise = np.random.default_rng(0).normal(0, 0.01, 32000)
    >>> humless, mains = remove_hum(noise + np.sin(2 * np.pi * 50 * time), 16000)
    >>> mains, bool(humless[4000:-4000].std() < 0.02), remove_hum(noise, 16000)[1]
    (50, True, 0)
    """
    if len(wav) < 1.5 * rate:
        return wav, 0
    # Frames of 1 s have one bin per Hz; the median over frames keeps what is always there.
    frames = np.lib.stride_tricks.sliding_window_view(wav, rate)[:: rate // 2] * hann(rate)
    power = np.square(np.abs(np.fft.rfft(frames)))
    middle = (len(power) - 1) // 2
    power = np.partition(power, middle, axis=0)[middle].astype(np.float64)
    whole = power.sum()
    for mains in _MAINS:
        lines = [mains * number for number in range(1, _HARMONICS + 1) if mains * number + 9 < len(power)]
        if not lines or not whole:
            continue
        peaks = np.array([power[line - 1 : line + 2].max() for line in lines])
        beside = [np.r_[power[line - 8 : line - 3], power[line + 4 : line + 9]] for line in lines]
        heights = peaks / np.maximum(np.median(beside, axis=1), 1e-12 * whole)
        # The window spreads a line over three bins, which sum to 1.5 times the highest.
        if heights[0] < 10 ** (_PROMINENT_DB / 10) or 1.5 * peaks[0] < whole * 10 ** (_LOUD_DB / 10):
            continue
        found = [
            line for line, height in zip(lines, heights, strict=True) if height > 10 ** (_LINE_DB / 10)
        ]
        return _notch(wav, found, rate), mains
    return wav, 0


def _notch(wav: np.ndarray, lines: list[int], rate: int) -> np.ndarray:
    """Filter lines out by second-order notches, forwards and backwards, for zero phase.

    Like `scipy.signal.filtfilt` with `iirnotch`, but on the spectrum, and with longer reflections at both ends.
    """
    size = round(_REFLECTED_SECONDS * rate)
    wav = wav.astype(np.float64)
    longer = np.concatenate(
        [2 * wav[0] - wav[size:0:-1], wav, 2 * wav[-1] - wav[-2 : -size - 2 : -1]]
    )
    n_fft = 2 ** int(np.ceil(np.log2(len(longer))))
    unit = np.exp(-2j * np.pi * np.fft.rfftfreq(n_fft))
    gain = np.ones(len(unit))
    for line in lines:
        turn = np.cos(2 * np.pi * line / rate)
        scale = 1 / (1 + np.tan(np.pi * _NOTCH_HZ / rate))
        above = scale * (1 - 2 * turn * unit + unit**2)
        below = 1 - 2 * scale * turn * unit + (2 * scale - 1) * unit**2
        gain *= np.square(np.abs(above / below))
    clean = np.fft.irfft(np.fft.rfft(longer, n_fft) * gain, n_fft)
    return clean[size : size + len(wav)].astype(np.float32)
