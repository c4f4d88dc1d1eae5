"""Cosine scores of trials, from one embedding per utterance."""

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.scoring.enrolment import (
    check_enrolment,
    check_models,
    enrolment_vectors,
    n_best_trial_scores,
)
from speechbrain_bccmt.scoring.vectors import unit_length

# Trials scored together: if they are most of the pairs of their utterances, one matrix product scores them.
TRIALS_PER_PRODUCT = 262_144
# Most products computed per trial: beyond that, gathering the two embeddings of each trial is quicker.
PRODUCTS_PER_TRIAL = 8
# Rows gathered at once: 16384 trials of 192-dimensional embeddings take 25 MB, whatever the length of the
# list.
TRIALS_PER_BLOCK = 16384


def cosine_scores(
    embeddings, enrol, test, models=None, enrolment: str = "mean_embedding", n_best: int = 2
) -> np.ndarray:
    """Score trials by the cosine of their two embeddings.

    Parameters
    ----------
    embeddings : array_like
        One embedding for each utterance, (N, D); numpy or torch, of any length.
    enrol : array_like of int
        Enrolment utterance of each trial as a row of `embeddings`, (M,); with `models`, the model of each trial.
    test : array_like of int
        Test utterance of each trial, (M,).
    models : sequence, optional
        Models enrolled with several utterances: each an `EnrolmentModel`, or rows of `embeddings`.
    enrolment : str
        How a model's utterances are combined: `mean_embedding`, `mean_score` or `n_best_mean`, see `enrolment`.
    n_best : int
        How many scores `n_best_mean` averages, at least 1.

    Returns
    -------
    numpy.ndarray
        Scores in [-1, 1], (M,), float32.

    Raises
    ------
    ValueError
        If shapes do not match, an index is out of range, or an embedding is zero, NaN or infinite.

    Examples
    --------
    >>> cosine_scores([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], [0, 1, 0], [1, 2, 2]).round(2).tolist()
    [0.0, 0.800000011920929, 0.6000000238418579]
    >>> cosine_scores([[1.0, 0.0], [0.0, 2.0], [0.0, 4.0]], [0], [2], models=[(0, 1)]).round(2).tolist()
    [0.7099999785423279]
    """
    embeddings = unit_length(embeddings)
    if models is None:
        enrol, test = check_trials(enrol, test, len(embeddings))
        return _pair_products(embeddings, embeddings, enrol, test)
    check_enrolment(enrolment, n_best)
    table = check_models(models, len(embeddings))
    enrol, test = check_trials(enrol, test, len(embeddings), len(table))
    if enrolment == "n_best_mean":
        return n_best_trial_scores(
            table, enrol, test, n_best, lambda *pairs: _pair_products(embeddings, embeddings, *pairs)
        )
    return _pair_products(enrolment_vectors(embeddings, table, enrolment), embeddings, enrol, test)


def _pair_products(left: np.ndarray, right: np.ndarray, enrol: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Multiply rows of `left` by rows of `right`, (M,), float32, clipped to [-1, 1]."""
    scores = np.empty(len(enrol), dtype=np.float32)
    # Sorted by enrolment: in lists that compare each model with many tests, neighbours then share both.
    order = None if (enrol[1:] >= enrol[:-1]).all() else np.argsort(enrol, kind="stable")
    for start in range(0, len(enrol), TRIALS_PER_PRODUCT):
        block = slice(start, start + TRIALS_PER_PRODUCT)
        rows = block if order is None else order[block]
        scores[rows] = _block_products(left, right, enrol[rows], test[rows])
    # Rounding may leave [-1, 1] by an ulp or two.
    return scores.clip(-1, 1, out=scores)


def _block_products(left: np.ndarray, right: np.ndarray, enrol: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Score trials in ascending order of `enrol`, by one matrix product or one product per trial."""
    new = np.flatnonzero(np.diff(enrol, prepend=-1))
    used = np.zeros(len(right), dtype=bool)
    used[test] = True
    tests = np.flatnonzero(used)
    if len(new) * len(tests) <= len(test) * PRODUCTS_PER_TRIAL:
        position = np.empty(len(right), dtype=np.intp)
        position[tests] = np.arange(len(tests))
        row = np.repeat(np.arange(len(new)), np.diff(new, append=len(enrol)))
        return (left[enrol[new]] @ right[tests].T)[row, position[test]]
    scores = np.empty(len(enrol), dtype=np.float32)
    for start in range(0, len(enrol), TRIALS_PER_BLOCK):
        block = slice(start, start + TRIALS_PER_BLOCK)
        scores[block] = np.einsum("td,td->t", left[enrol[block]], right[test[block]])
    return scores


def check_trials(
    enrol, test, n_embeddings: int, n_models: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Convert the trials' indices to integer arrays that fit the embeddings.

    Parameters
    ----------
    enrol, test : array_like of int
        Indices, (M,) each; numpy or torch.
    n_embeddings : int
        Number of embeddings that they point into.
    n_models : int, optional
        Number of models that `enrol` points into instead.

    Returns
    -------
    enrol, test : numpy.ndarray
        (M,), integers in [0, n_embeddings); `enrol` in [0, n_models) if that is given.

    Raises
    ------
    ValueError
        If shapes differ, or an index is not an integer or is out of range.
    """
    indices = []
    for name, index in (("enrol", enrol), ("test", test)):
        kind, number = (
            ("embedding", n_embeddings) if n_models is None or name == "test" else ("model", n_models)
        )
        index = as_array(index)
        if index.ndim != 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
            raise ValueError(
                f"{name} has shape {index.shape} and type {index.dtype}, expected integers (trials,)"
            )
        if index.size and (index.min() < 0 or index.max() >= number):
            what = "utterances" if kind == "embedding" else "models"
            raise ValueError(
                f"{name} points at {what} {index.min()} to {index.max()}, but there are {number} {kind}s"
            )
        indices.append(index.astype(np.intp, copy=False))
    if len(indices[0]) != len(indices[1]):
        raise ValueError(f"enrol has {len(indices[0])} trials and test {len(indices[1])}: expected as many")
    return indices[0], indices[1]
