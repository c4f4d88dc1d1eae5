"""Waveforms in memory: checked, and taken out of their batch."""

from __future__ import annotations

import numpy as np
import torch


def to_float(wav) -> torch.Tensor:
    """Turn samples of any kind into float32 of full scale 1, as libsndfile does: integers are scaled.

    Parameters
    ----------
    wav : array_like
        numpy or torch, floating point or 8-bit unsigned, 16-bit or 32-bit integers.

    Returns
    -------
    torch.Tensor
        Of the same shape, on the CPU.

    Raises
    ------
    ValueError
        If the samples are of another kind.

    Examples
    --------
    >>> import numpy as np
    >>> to_float(np.array([-32768, 16384], dtype=np.int16))
    tensor([-1.0000,  0.5000])
    """
    wav = torch.as_tensor(wav).detach().cpu()
    if wav.is_floating_point():
        return wav.float()
    if wav.dtype == torch.uint8:
        return (wav.float() - 128) / 128
    if wav.dtype not in (torch.int16, torch.int32):
        raise ValueError(f"samples are {wav.dtype}, expected floating point, uint8, int16 or int32")
    return (wav.double() / -float(torch.iinfo(wav.dtype).min)).float()


# Channels whose average has less than this share of the louder one's energy cancel each other: 10 dB less.
CANCELLED_SHARE = 0.1


def mix_down(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    """Average channels, or take the loudest where they cancel each other, as an inverted one does.

    Parameters
    ----------
    samples : numpy.ndarray
        (samples, channels).

    Returns
    -------
    mono : numpy.ndarray
        (samples,).
    cancelled : bool
        Whether the average would have been lost.

    Examples
    --------
    >>> mix_down(np.array([[0.5, -0.5], [0.2, -0.2]])), mix_down(np.array([[0.5, 0.3]]))
    ((array([0.5, 0.2]), True), (array([0.4]), False))
    """
    if samples.shape[1] == 1:
        return samples[:, 0], False
    mono, energies = samples.mean(axis=1), np.square(samples, dtype=np.float64).sum(axis=0)
    loudest = int(energies.argmax())
    cancelled = bool(
        np.square(mono, dtype=np.float64).sum() < CANCELLED_SHARE / samples.shape[1] * energies.sum()
    )
    return (samples[:, loudest] if cancelled else mono), cancelled


def split_batch(wavs, wav_lens, rate: int, min_seconds: float) -> list[torch.Tensor]:
    """Check a padded batch, and take its utterances out of the padding.

    Parameters
    ----------
    wavs : torch.Tensor
        (batch, samples), (batch, samples, channels) or (samples,). Channels are averaged, see `mix_down`.
    wav_lens : torch.Tensor or None
        Relative lengths, (batch,), in (0, 1]; None: all are whole.
    rate : int
        Sample rate in Hz.
    min_seconds : float
        The shortest utterance to accept.

    Returns
    -------
    list of torch.Tensor
        (samples,) each, float32.

    Raises
    ------
    ValueError
        If shape or lengths are impossible, an utterance is too short, or a sample of one is NaN or infinite.

    Examples
    --------
    >>> [len(wav) for wav in split_batch(torch.rand(2, 1000), torch.tensor([1.0, 0.5]), 1000, 0.1)]
    [1000, 500]
    """
    wavs = torch.as_tensor(wavs).float()
    if wavs.dim() == 1:
        wavs = wavs.unsqueeze(0)
    if wavs.dim() == 3:
        wavs = torch.stack([torch.from_numpy(mix_down(wav.numpy())[0]) for wav in wavs.cpu()])
    if wavs.dim() != 2 or not len(wavs):
        raise ValueError(f"waveforms have shape {tuple(wavs.shape)}, expected (batch, samples)")
    sizes = [wavs.shape[1]] * len(wavs)
    if wav_lens is not None:
        lengths = torch.as_tensor(wav_lens, dtype=torch.float64).cpu()
        if lengths.shape != (len(wavs),) or not bool(((lengths > 0) & (lengths <= 1)).all()):
            raise ValueError(
                f"lengths are {lengths.tolist()}, expected {len(wavs)} relative ones, above 0 and up to 1"
            )
        sizes = [round(length * wavs.shape[1]) for length in lengths.tolist()]
    shortest = min(sizes) / rate
    if shortest < min_seconds:
        raise ValueError(
            f"an utterance of {shortest:.4g} s is too short, this model takes {min_seconds:g} s or more"
        )
    utterances = [wav[:size] for wav, size in zip(wavs, sizes, strict=True)]
    if not all(bool(torch.isfinite(wav).all()) for wav in utterances):
        raise ValueError("waveforms hold NaN or infinite samples")
    return utterances
