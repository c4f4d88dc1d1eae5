"""Waveforms in memory: conversion, mixing down, and checking and unpadding batches."""

from __future__ import annotations

import numpy as np

from speechbrain_bccmt.arrays import as_array


def to_float(wav) -> np.ndarray:
    """Convert samples to float32 with full scale 1; integers are scaled as in libsndfile.

    Parameters
    ----------
    wav : array_like
        numpy or torch; floating point, or integers of 8 bits (unsigned), 16 or 32 bits.

    Returns
    -------
    numpy.ndarray
        Of the same shape.

    Raises
    ------
    ValueError
        If the samples are of another type.

    Examples
    --------
    >>> to_float(np.array([-32768, 16384], dtype=np.int16))
    array([-1. ,  0.5], dtype=float32)
    """
    wav = as_array(wav)
    if np.issubdtype(wav.dtype, np.floating):
        return wav.astype(np.float32, copy=False)
    if wav.dtype == np.uint8:
        return (wav.astype(np.float32) - 128) / 128
    if wav.dtype not in (np.int16, np.int32):
        raise ValueError(f"samples are {wav.dtype}, expected floating point, uint8, int16 or int32")
    return (wav / -float(np.iinfo(wav.dtype).min)).astype(np.float32)


# Channels cancel each other if their average has less than this share of their mean energy: 10 dB less.
CANCELLED_SHARE = 0.1


def mix_down(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    """Average channels, or take the loudest if they cancel each other, as when one is inverted.

    Parameters
    ----------
    samples : numpy.ndarray
        (samples, channels).

    Returns
    -------
    mono : numpy.ndarray
        (samples,).
    cancelled : bool
        Whether averaging would have lost the signal.

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


def split_batch(wavs, wav_lens, rate: int, min_seconds: float) -> list[np.ndarray]:
    """Check a padded batch, and return its utterances without the padding.

    Parameters
    ----------
    wavs : array_like
        (batch, samples), (batch, samples, channels) or (samples,). Channels are averaged, see `mix_down`.
    wav_lens : array_like or None
        Relative lengths, (batch,), in (0, 1]; None: all have full length.
    rate : int
        Sample rate in Hz.
    min_seconds : float
        The shortest utterance to accept.

    Returns
    -------
    list of numpy.ndarray
        (samples,) each, float32.

    Raises
    ------
    ValueError
        If shape or lengths are impossible, an utterance is too short, or holds NaN or infinite samples.

    Examples
    --------
    >>> [len(wav) for wav in split_batch(np.random.rand(2, 1000), [1.0, 0.5], 1000, 0.1)]
    [1000, 500]
    """
    wavs = as_array(wavs, np.float32)
    if wavs.ndim == 1:
        wavs = wavs[None]
    if wavs.ndim == 3:
        wavs = np.stack([mix_down(wav)[0] for wav in wavs])
    if wavs.ndim != 2 or not len(wavs):
        raise ValueError(f"waveforms have shape {wavs.shape}, expected (batch, samples)")
    sizes = [wavs.shape[1]] * len(wavs)
    if wav_lens is not None:
        lengths = as_array(wav_lens, np.float64)
        if lengths.shape != (len(wavs),) or not ((lengths > 0) & (lengths <= 1)).all():
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
    if not all(np.isfinite(wav).all() for wav in utterances):
        raise ValueError("waveforms hold NaN or infinite samples")
    return utterances
