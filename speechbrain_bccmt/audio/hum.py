"""Hum of the mains under a recording: found by its steady lines, and filtered out."""

from __future__ import annotations

import numpy as np
import torch
from scipy.signal import filtfilt, iirnotch

# Hz; the lines up to the tenth harmonic.
_MAINS, _HARMONICS = (50, 60), 10
# The lowest line of a hum stands so far above what is beside it, and lies at most so far below the whole, in dB. Clean
# speech of six corpora passes neither but for some recordings that do hum; 10 dB below the speech, hum passes both.
_PROMINENT_DB, _LOUD_DB = 25.0, -20.0
# Other lines of it are filtered from here on.
_LINE_DB = 10.0
# Width of a notch in Hz.
_NOTCH_HZ = 4.0


def remove_hum(wav: torch.Tensor, rate: int) -> tuple[torch.Tensor, int]:
    """Filter a loud hum out of a recording, and leave all others as they are.

    Parameters
    ----------
    wav : torch.Tensor
        (samples,), on the CPU.
    rate : int
        Sample rate in Hz.

    Returns
    -------
    wav : torch.Tensor
        (samples,), the same one where there is no hum, or less than 1.5 s.
    mains : int
        50 or 60 Hz; 0 where there is no hum.

    Examples
    --------
    >>> time = torch.arange(32000) / 16000
    >>> noise = 0.01 * torch.randn(32000, generator=torch.Generator().manual_seed(0))
    >>> humless, mains = remove_hum(noise + torch.sin(2 * torch.pi * 50 * time), 16000)
    >>> mains, bool(humless[4000:-4000].std() < 0.02), remove_hum(noise, 16000)[1]
    (50, True, 0)
    """
    if len(wav) < 1.5 * rate:
        return wav, 0
    # Frames of 1 s have a value for each Hz; their median is of what is always there.
    frames = wav.unfold(0, rate, rate // 2) * torch.hann_window(rate)
    power = torch.fft.rfft(frames).abs().square().median(dim=0).values.double().numpy()
    whole = power.sum()
    for mains in _MAINS:
        lines = [mains * number for number in range(1, _HARMONICS + 1) if mains * number + 9 < len(power)]
        if not lines or not whole:
            continue
        peaks = np.array([power[line - 1 : line + 2].max() for line in lines])
        beside = [np.r_[power[line - 8 : line - 3], power[line + 4 : line + 9]] for line in lines]
        heights = peaks / np.maximum(np.median(beside, axis=1), 1e-12 * whole)
        # The window spreads a line over three values, in all 1.5 times the highest.
        if heights[0] < 10 ** (_PROMINENT_DB / 10) or 1.5 * peaks[0] < whole * 10 ** (_LOUD_DB / 10):
            continue
        clean = wav.double().numpy()
        for line, height in zip(lines, heights, strict=True):
            if height > 10 ** (_LINE_DB / 10):
                clean = filtfilt(*iirnotch(line, line / _NOTCH_HZ, rate), clean)
        return torch.from_numpy(clean.astype(np.float32)), mains
    return wav, 0
