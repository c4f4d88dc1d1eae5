"""Recording channel of a voice: equaliser, bandwidth, room, noise and level, drawn once per session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, fftconvolve, firwin2, sosfilt

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Channel:
    """A recording channel.

    Parameters
    ----------
    filter : np.ndarray
        Linear-phase equaliser (taps,).
    band : tuple of float
        Lowest and highest frequency of the pass band, in Hz.
    room : np.ndarray
        Impulse response (samples,), direct sound first.
    noise_colour : float
        Slope of the noise: 0 is white, 0.99 is a rumble.
    snr_db : float
        Power ratio of speech to noise in dB.
    peak : float
        Largest absolute sample after the channel, below 1 to avoid clipping.
    """

    filter: np.ndarray
    band: tuple[float, float]
    room: np.ndarray
    noise_colour: float
    snr_db: float
    peak: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Channel:
        """Draw a channel.

        Parameters
        ----------
        rng : np.random.Generator
            Source of the draw.

        Returns
        -------
        Channel
            The channel; one in three has telephone bandwidth.
        """
        frequencies = [0, 125, 250, 500, 1000, 2000, 4000, 6000, 8000]
        gains = 10 ** (rng.normal(0, 3, len(frequencies)) / 20)
        telephone = rng.random() < 1 / 3
        decay_seconds = rng.uniform(0.05, 0.35)
        # The reverberation is noise that falls by 60 dB within the decay time.
        times = np.arange(int(decay_seconds * SAMPLE_RATE)) / SAMPLE_RATE
        tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / decay_seconds)
        tail *= 10 ** (rng.uniform(-25, -6) / 20) / np.linalg.norm(tail)
        tail[0] = 1
        return cls(
            filter=firwin2(129, frequencies, gains, fs=SAMPLE_RATE),
            band=(300.0, 3400.0) if telephone else (rng.uniform(30, 120), rng.uniform(5000, 7900)),
            room=tail,
            noise_colour=rng.uniform(0, 0.97),
            snr_db=rng.uniform(12, 35),
            peak=rng.uniform(0.15, 0.9),
        )

    def apply(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Record a signal through the channel.

        Parameters
        ----------
        samples : np.ndarray
            Speech (samples,) at 16 kHz.
        rng : np.random.Generator
            Source of the noise.

        Returns
        -------
        np.ndarray
            Recording (samples,) as long as the speech, float64, at most `peak` in absolute value.

        Examples
        --------
        >>> rng = np.random.default_rng(1)
        >>> channel = Channel.draw(rng)
        >>> recording = channel.apply(rng.standard_normal(16000), rng)
        >>> recording.shape, bool(np.isclose(np.abs(recording).max(), channel.peak))
        ((16000,), True)
        """
        speech = fftconvolve(samples, self.room)[: len(samples)]
        noise = sosfilt([[1, 0, 0, 1, -self.noise_colour, 0]], rng.standard_normal(len(samples)))
        noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2) / 10 ** (self.snr_db / 10))
        passed = sosfilt(butter(4, self.band, "bandpass", fs=SAMPLE_RATE, output="sos"), speech + noise)
        recording = fftconvolve(passed, self.filter, mode="same")
        return recording * (self.peak / np.abs(recording).max())
