"""Cohorts: their choice, the means of their speakers, and the mean that all speakers have in common."""

import random

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.scoring.vectors import unit_length


def choose_cohort(
    rows: list[dict], speakers: int | None = None, utterances: int | None = None, seed: int = 0
) -> list[dict]:
    """Choose the utterances of a cohort at random: some speakers, and some utterances of each.

    Parameters
    ----------
    rows : list of dict
        Rows of a CSV of utterances, with `spk_id`.
    speakers : int or None
        How many speakers; all if None or if there are no more.
    utterances : int or None
        How many utterances of each; all if None or if there are no more.
    seed : int
        The same seed gives the same choice.

    Returns
    -------
    list of dict
        The chosen rows, in their original order.

    Raises
    ------
    ValueError
        If a number is below 1.

    Examples
    --------
    >>> rows = [{"ID": f"{speaker}{n}", "spk_id": speaker} for speaker in "abc" for n in range(4)]
    >>> [row["ID"] for row in choose_cohort(rows, speakers=2, utterances=2)]
    ['b0', 'b1', 'c1', 'c3']
    """
    for name, number in (("speakers", speakers), ("utterances", utterances)):
        if number is not None and number < 1:
            raise ValueError(f"a cohort of {number} {name}: expected at least 1")
    by_speaker: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_speaker.setdefault(row["spk_id"], []).append(index)
    generator = random.Random(seed)
    names = sorted(by_speaker)
    if speakers is not None and speakers < len(names):
        names = generator.sample(names, speakers)
    chosen = []
    for name in names:
        of_speaker = by_speaker[name]
        if utterances is not None and utterances < len(of_speaker):
            of_speaker = generator.sample(of_speaker, utterances)
        chosen += of_speaker
    return [rows[index] for index in sorted(chosen)]


def speaker_means(embeddings, speakers: list[str]) -> np.ndarray:
    """Average the embeddings of each speaker, all utterances with the same weight.

    Parameters
    ----------
    embeddings : array_like
        (N, D); numpy or torch. Each is scaled to unit length first.
    speakers : list of str
        Speaker of each embedding.

    Returns
    -------
    numpy.ndarray
        (number of speakers, D), in the order of the speakers' names.

    Raises
    ------
    ValueError
        If shapes do not match, or an embedding is zero, NaN or infinite.

    Examples
    --------
    >>> speaker_means([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]], ["b", "a", "a"]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    embeddings = unit_length(embeddings)
    names, index, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    if len(index) != len(embeddings):
        raise ValueError(f"{len(index)} speakers for {len(embeddings)} embeddings: expected as many")
    # Sort each speaker's rows together, then sum them.
    order, starts = np.argsort(index, kind="stable"), np.cumsum(counts) - counts
    return np.add.reduceat(embeddings[order], starts, axis=0) / counts[:, None].astype(np.float32)


def subtract_mean(embeddings, cohort) -> np.ndarray:
    """Subtract the cohort's mean embedding, which all speakers have in common.

    Apply it before the cosine, to the embeddings of trials and cohort alike, as the network outputs them (not of unit
    length).

    Parameters
    ----------
    embeddings : array_like
        (N, D); numpy or torch.
    cohort : array_like
        (C, D), embeddings of other speakers, preferably from the domain of the trials.

    Returns
    -------
    numpy.ndarray
        (N, D), float32.

    Raises
    ------
    ValueError
        If shapes do not match, or the cohort is empty, NaN or infinite.

    Examples
    --------
    >>> subtract_mean([[3.0, 4.0]], [[1.0, 0.0], [1.0, 2.0]]).tolist()
    [[2.0, 3.0]]
    """
    embeddings, cohort = (as_array(part, np.float32) for part in (embeddings, cohort))
    if embeddings.ndim != 2 or cohort.ndim != 2 or embeddings.shape[1] != cohort.shape[1]:
        raise ValueError(
            f"embeddings have shape {embeddings.shape} and the cohort {cohort.shape}, expected (number, size) "
            "of one size"
        )
    if not len(cohort):
        raise ValueError("a cohort of no embeddings has no mean")
    mean = cohort.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise ValueError("the cohort has embeddings that are NaN or infinite")
    return (embeddings - mean.astype(np.float32)).astype(np.float32, copy=False)
