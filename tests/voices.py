"""Recordings and a calibration that many tests share."""

import numpy as np

from speechbrain_bccmt.scoring.calibration import Calibration

CALIBRATION = Calibration(scale=20.0, offset=-6.0, p_target=0.5)


def voice(seconds, seed=0, rate=16000):
    """Return noise with a spectrum of its own, swelling and fading like syllables."""
    rng = np.random.default_rng(seed)
    wav = np.convolve(rng.normal(0, 0.02, round(seconds * rate)), rng.normal(0, 1, 24), mode="same")
    return wav * (1.1 + np.sin(2 * np.pi * 4 * np.arange(len(wav)) / rate))
