"""Augmentation of a whole batch of crops on its device: rooms, equalisers, noise, other talkers, telephone, level."""

from __future__ import annotations

import torch

from speechbrain_bccmt.training.augmentation import telephone_line

RATE = 16000
KNOTS = 8  # knots of an equaliser, spread over the square root of the frequency


class BatchAugmentation:
    """Augment a batch of crops, with separate draws for each.

    Parameters
    ----------
    noise : Tensor
        (samples,), concatenated noises.
    responses : Tensor
        (N, 16000), room impulse responses of unit energy that begin with the direct sound.
    """

    def __init__(self, noise: torch.Tensor, responses: torch.Tensor):
        self.noise, self.responses, self.device = noise, responses, noise.device

    def __call__(self, waves: torch.Tensor) -> torch.Tensor:
        """Augment (batch, samples) in [-1, 1]."""
        waves = self._add_noise(self._filter(waves), talkers=waves)
        lines = round(0.18 * len(waves))  # crops come in random order, so the first ones will do
        waves = torch.cat([telephone_line(waves[:lines], RATE), waves[lines:]]) if lines else waves
        level = 10 ** (-1.5 * self._rand(len(waves), 1))
        waves = waves / waves.abs().amax(1, keepdim=True).clamp(min=1e-5) * level
        clipped = (3 * waves).clamp(-0.3, 0.3)
        return torch.where(self._rand(len(waves), 1) < 0.03, clipped, waves)

    def _rand(self, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=self.device)

    def _filter(self, waves: torch.Tensor) -> torch.Tensor:
        """Convolve with a room response (a quarter of the crops) and an equaliser of up to 8 dB (30 %)."""
        batch, samples = waves.shape
        size = samples + RATE
        rooms = self.responses[torch.randint(len(self.responses), (batch,), device=self.device)]
        direct = torch.zeros_like(rooms[:1])
        direct[0, 0] = 1.0
        rooms = torch.where(self._rand(batch, 1) < 0.25, rooms, direct)
        decibels = (self._rand(batch, KNOTS) - 0.5) * 16 * (self._rand(batch, 1) < 0.3)
        position = torch.linspace(0, 1, size // 2 + 1, device=self.device).sqrt() * (KNOTS - 1)
        below = position.long().clamp(max=KNOTS - 2)
        share = position - below
        decibels = decibels[:, below] * (1 - share) + decibels[:, below + 1] * share
        spectrum = torch.fft.rfft(waves, size) * torch.fft.rfft(rooms, size) * 10 ** (decibels / 20)
        filtered = torch.fft.irfft(spectrum, size)[:, :samples]
        return filtered * (_power(waves) / _power(filtered).clamp(min=1e-10)).sqrt()

    def _add_noise(self, waves: torch.Tensor, talkers: torch.Tensor) -> torch.Tensor:
        """Add noise, or one to three other talkers, to half of the crops at 0 to 25 dB."""
        batch, samples = waves.shape
        starts = torch.randint(len(self.noise) - samples, (batch, 1), device=self.device)
        noise = self.noise[starts + torch.arange(samples, device=self.device)]
        others = sum(
            talkers.roll(shift, 0) * (self._rand(batch, 1) < probability)
            for shift, probability in ((1, 1.0), (2, 0.6), (5, 0.4))
        )
        noise = torch.where(self._rand(batch, 1) < 0.2, others, noise)
        gain = (_power(waves) / _power(noise).clamp(min=1e-9)).sqrt() * 10 ** (
            -25 * self._rand(batch, 1) / 20
        )
        return waves + noise * gain.clamp(max=100) * (self._rand(batch, 1) < 0.5)


def _power(waves: torch.Tensor) -> torch.Tensor:
    return waves.square().mean(1, keepdim=True)
