"""Models enrolled with several utterances, and how these are combined into one score per trial."""

from collections.abc import Callable, Sequence

import numpy as np

from speechbrain_bccmt.scoring.vectors import unit_length

ENROLMENTS = ("mean_embedding", "mean_score", "n_best_mean")
# Scores held at once by the n-best mean, 4 bytes each: 16 MB.
SCORES_PER_BLOCK = 4_000_000


def enrolment_vectors(embeddings: np.ndarray, table: np.ndarray, enrolment: str) -> np.ndarray:
    """Return the vector of each model whose product with a test embedding is the trial's score.

    Parameters
    ----------
    embeddings : numpy.ndarray
        (N, D), of unit length.
    table : numpy.ndarray
        (models, K), see `check_models`.
    enrolment : str
        `mean_embedding` or `mean_score`; the n-best mean has no such vector.

    Returns
    -------
    numpy.ndarray
        (models, D), float32.
    """
    vectors = mean_embeddings(embeddings, table)
    return unit_length(vectors, "model's mean embedding") if enrolment == "mean_embedding" else vectors


def check_models(models: Sequence, n_embeddings: int) -> np.ndarray:
    """Turn models into a table of their utterances.

    Parameters
    ----------
    models : sequence
        Each an `EnrolmentModel`, or the rows of its utterances' embeddings.
    n_embeddings : int
        Number of embeddings that they point into.

    Returns
    -------
    numpy.ndarray
        (models, K), K the most utterances of any model; integers, -1 where a model has fewer.

    Raises
    ------
    ValueError
        If there is no model, one has no utterance, or an index is not an integer or is out of range.

    Examples
    --------
    >>> check_models([(0, 1, 2), (4,)], 5).tolist()
    [[0, 1, 2], [4, -1, -1]]
    """
    rows = [np.asarray(getattr(model, "utterances", model)) for model in models]
    if not rows:
        raise ValueError("there are no enrolment models")
    for number, row in enumerate(rows):
        if row.ndim != 1 or row.size == 0 or not np.issubdtype(row.dtype, np.integer):
            raise ValueError(
                f"model number {number} has utterances of shape {row.shape} and type {row.dtype}, expected "
                "at least one integer"
            )
        if row.min() < 0 or row.max() >= n_embeddings:
            raise ValueError(
                f"model number {number} points at utterances {row.min()} to {row.max()}, but there are "
                f"{n_embeddings} embeddings"
            )
    table = np.full((len(rows), max(map(len, rows))), -1, dtype=np.intp)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table


def check_enrolment(enrolment: str, n_best: int) -> None:
    """Reject invalid ways of combining a model's utterances.

    Raises
    ------
    ValueError
        If `enrolment` is not one of `ENROLMENTS`, or `n_best` is below 1.
    """
    if enrolment not in ENROLMENTS:
        raise ValueError(f"enrolment is '{enrolment}', expected one of {', '.join(ENROLMENTS)}")
    if n_best < 1:
        raise ValueError(f"n_best is {n_best}, expected at least 1 score")


def mean_embeddings(embeddings: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Average the embeddings of each model's utterances.

    With embeddings of unit length, the product of such a mean with a test embedding is the mean of the cosines, so it
    gives `mean_score` unscaled, and `mean_embedding` after scaling to unit length.

    Parameters
    ----------
    embeddings : numpy.ndarray
        (N, D).
    table : numpy.ndarray
        (models, K), see `check_models`.

    Returns
    -------
    numpy.ndarray
        (models, D), of the type of the embeddings.

    Examples
    --------
    >>> mean_embeddings(np.eye(2), np.array([[0, 1], [1, -1]])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    sums = np.zeros((len(table), embeddings.shape[1]), dtype=embeddings.dtype)
    for column in table.T:  # one step per utterance of the largest model
        have = column >= 0
        sums[have] += embeddings[column[have]]
    return sums / (table >= 0).sum(axis=1, keepdims=True).astype(embeddings.dtype)


def n_best_mean(scores: np.ndarray, n_best: int) -> np.ndarray:
    """Average the highest scores along the second axis.

    Parameters
    ----------
    scores : numpy.ndarray
        (models or trials, utterances, ...); -inf where a model has fewer utterances.
    n_best : int
        How many to average; all if a model has fewer.

    Returns
    -------
    numpy.ndarray
        The shape of `scores` without its second axis.

    Examples
    --------
    >>> n_best_mean(np.array([[1.0, 3.0, 2.0], [5.0, -np.inf, -np.inf]]), 2).tolist()
    [2.5, 5.0]
    """
    if n_best < scores.shape[1]:
        scores = np.partition(scores, scores.shape[1] - n_best, axis=1)[:, -n_best:]
    have = scores > -np.inf
    return np.where(have, scores, 0).sum(axis=1) / have.sum(axis=1)


def n_best_trial_scores(
    table: np.ndarray, enrol: np.ndarray, test: np.ndarray, n_best: int, score: Callable
) -> np.ndarray:
    """Score trials by the n-best mean, a block of trials at a time.

    Parameters
    ----------
    table : numpy.ndarray
        (models, K), see `check_models`.
    enrol, test : numpy.ndarray
        (M,), models and test utterances.
    n_best : int
        How many of a model's scores count.
    score : callable
        Returns the scores (P,) of pairs of utterances (P,) and (P,).

    Returns
    -------
    numpy.ndarray
        (M,), float32.
    """
    scores = np.empty(len(enrol), dtype=np.float32)
    trials = max(1, SCORES_PER_BLOCK // table.shape[1])
    for start in range(0, len(enrol), trials):
        block = slice(start, start + trials)
        utterances = table[enrol[block]]
        have = utterances >= 0
        of_utterances = np.full(utterances.shape, -np.inf, dtype=np.float32)
        tests = np.broadcast_to(test[block, None], utterances.shape)
        of_utterances[have] = score(utterances[have], tests[have])
        scores[block] = n_best_mean(of_utterances, n_best)
    return scores
