"""Adapting a model to one's own recordings: what they all share, be it channel, room or language, is not voice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speechbrain_bccmt.scoring.vectors import unit_length

# The mean of fewer voices says more about the voices than about the recordings.
LEAST_VOICES = 5
# Number of voices that weigh as much as the model's prior, which is no centre at all (benchmarks/adaptation.py).
PRIOR_VOICES = 10


@dataclass(frozen=True)
class Domain:
    """What the recordings of a place have in common.

    Attributes
    ----------
    centre : numpy.ndarray
        (D,), to be subtracted from every embedding: the mean over the voices, shrunk more the fewer there are.
    voices, recordings : int
        How many it was computed from.
    """

    centre: np.ndarray
    voices: int
    recordings: int


def find_domain(embeddings, threshold: float) -> Domain:
    """Find what recordings of several people have in common; who speaks in which need not be known.

    Recordings are grouped by voice, as the model hears it, so every voice has the same weight.

    Parameters
    ----------
    embeddings : array_like
        (N, D), as output by the network, not of unit length.
    threshold : float
        The cosine from which two recordings are taken to be of one voice.

    Returns
    -------
    Domain
        The centre.

    Raises
    ------
    ValueError
        If there are fewer than `LEAST_VOICES` voices, or an embedding is zero, NaN or infinite.

    Examples
    --------
    >>> voices = np.eye(8)[:6] + 0.5  # six voices in one room
    >>> domain = find_domain(np.repeat(voices, [1, 2, 1, 1, 3, 1], axis=0), threshold=0.9)
    >>> domain.voices, domain.recordings, domain.centre.round(2).tolist()
    (6, 9, [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.19, 0.19])
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    units, voices = unit_length(embeddings), 0
    sums = np.zeros_like(units)  # of each voice's unit vectors so far
    voice = np.empty(len(units), dtype=np.intp)
    for row, unit in enumerate(units):
        likeness = sums[:voices] @ unit / np.linalg.norm(sums[:voices], axis=1)
        known = voices and likeness.max() >= threshold
        voice[row] = likeness.argmax() if known else voices
        voices += not known
        sums[voice[row]] += unit
    if voices < LEAST_VOICES:
        raise ValueError(
            f"{len(embeddings)} recordings of {voices} voice{'s' * (voices > 1)}, as the model hears them: "
            f"what they have in common is known from {LEAST_VOICES} voices on, and well from {3 * PRIOR_VOICES}: add "
            "recordings of other people"
        )
    mean = np.mean([embeddings[voice == number].mean(axis=0) for number in range(voices)], axis=0)
    return Domain(voices / (voices + PRIOR_VOICES) * mean, voices, len(embeddings))
