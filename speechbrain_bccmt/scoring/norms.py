"""Score normalisation against a cohort of other speakers.

A score means more relative to those of other speakers: it is normalised by the mean and standard deviation of the
cohort scores of the enrolment, of the test, or of both (z-, t- and s-norm).
"""

from collections.abc import Callable

import numpy as np

from speechbrain_bccmt.scoring.cosine import check_trials
from speechbrain_bccmt.scoring.enrolment import check_enrolment, check_models, enrolment_vectors, n_best_mean
from speechbrain_bccmt.scoring.vectors import unit_length

__all__ = [
    "cohort_statistics",
    "s_norm",
    "t_norm",
    "z_norm",
]

# Cohort scores held at once, 4 bytes each: 64 MB.
SCORES_PER_BLOCK = 16_000_000
TRIALS_PER_BLOCK = 1_000_000


def z_norm(
    scores, embeddings, enrol, test, cohort, top_n=None, models=None, enrolment="mean_embedding", n_best=2
) -> np.ndarray:
    """Normalise scores by the enrolment's scores against a cohort: (s - mean_e) / std_e.

    Li and Porter 1988; Reynolds 1997. Parameters, result and errors are those of `s_norm`.

    Examples
    --------
    >>> embeddings, cohort = np.eye(3), np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    >>> z_norm([0.5], embeddings, [0], [1], cohort).round(3).tolist()
    [0.647]
    """
    return _normalise(("enrol",), scores, embeddings, enrol, test, cohort, top_n, models, enrolment, n_best)


def t_norm(
    scores, embeddings, enrol, test, cohort, top_n=None, models=None, enrolment="mean_embedding", n_best=2
) -> np.ndarray:
    """Normalise scores by the test's scores against a cohort: (s - mean_t) / std_t.

    Auckenthaler, Carey and Lloyd-Thomas 2000. Parameters, result and errors are those of `s_norm`.

    Examples
    --------
    >>> embeddings, cohort = np.eye(3), np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    >>> t_norm([0.5], embeddings, [0], [1], cohort).round(3).tolist()
    [-0.134]
    """
    return _normalise(("test",), scores, embeddings, enrol, test, cohort, top_n, models, enrolment, n_best)


def s_norm(
    scores,
    embeddings,
    enrol,
    test,
    cohort,
    top_n: int | None = None,
    models=None,
    enrolment: str = "mean_embedding",
    n_best: int = 2,
) -> np.ndarray:
    """Normalise scores symmetrically by the scores of each side of a trial against a cohort.

    ((s - mean_e) / std_e + (s - mean_t) / std_t) / 2, with mean and standard deviation of the enrolment's
    and the test's cosine with the cohort (Kenny 2010; SpeechBrain's "s-norm"). With `top_n` only the highest
    cohort scores of each side count: adaptive s-norm (Matejka et al. 2017, "AS-norm 1").

    Statistics are computed once for each utterance or model. Without `top_n` they follow from the cohort's mean and
    covariance, so its size does not matter.

    Parameters
    ----------
    scores : array_like
        Cosine scores of the trials, (M,).
    embeddings : array_like
        One embedding for each utterance, (N, D); numpy or torch.
    enrol : array_like of int
        Enrolment utterance of each trial as a row of `embeddings`, (M,); with `models`, the model of each trial.
    test : array_like of int
        Test utterance of each trial, (M,).
    cohort : array_like
        Mean embeddings of speakers that occur in no trial, (C, D), C at least 2; see `speaker_means`.
    top_n : int or None
        How many of the highest cohort scores count, at least 2; all if None or if the cohort has no more.
    models, enrolment, n_best
        As passed to `cosine_scores`: a model's cohort scores are computed in the same way.

    Returns
    -------
    numpy.ndarray
        Normalised scores, (M,), float64.

    Raises
    ------
    ValueError
        If shapes do not match, the cohort has fewer than two embeddings or gives an utterance the same score with all
        of them, or `top_n` is below 2.

    Examples
    --------
    >>> embeddings, cohort = np.eye(3), np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    >>> s_norm([0.5], embeddings, [0], [1], cohort).round(3).tolist()
    [0.07]
    """
    sides = ("enrol", "test")
    return _normalise(sides, scores, embeddings, enrol, test, cohort, top_n, models, enrolment, n_best)


def cohort_statistics(embeddings, cohort, top_n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and standard deviation of each utterance's scores against a cohort.

    Parameters
    ----------
    embeddings : array_like
        (N, D); numpy or torch.
    cohort : array_like
        (C, D), C at least 2.
    top_n : int or None
        How many of the highest cohort scores count, at least 2; all if None or if the cohort has no more.

    Returns
    -------
    mean, std : numpy.ndarray
        Of the cosines, (N,) each, float64.

    Raises
    ------
    ValueError
        As `s_norm` does.

    Examples
    --------
    >>> mean, std = cohort_statistics([[2.0, 0.0]], np.eye(2))
    >>> mean.tolist(), std.round(3).tolist()
    ([0.5], [0.707])
    """
    vectors = unit_length(embeddings)
    cohort = _check_cohort(unit_length(cohort, "cohort embedding"), vectors.shape[1], top_n)
    return _of_vectors(vectors, [np.arange(len(vectors))], cohort, top_n)


def _normalise(sides, scores, embeddings, enrol, test, cohort, top_n, models, enrolment, n_best):
    vectors = unit_length(embeddings)
    cohort = _check_cohort(unit_length(cohort, "cohort embedding"), vectors.shape[1], top_n)
    table = None if models is None else check_models(models, len(vectors))
    if table is not None:
        check_enrolment(enrolment, n_best)
    enrol, test = check_trials(enrol, test, len(vectors), None if table is None else len(table))
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != enrol.shape:
        raise ValueError(f"scores have shape {scores.shape}, expected one a trial, {enrol.shape}")
    index = {"enrol": enrol, "test": test}
    if table is None:  # both sides are utterances: one that occurs on both is computed once
        statistics = dict.fromkeys(
            sides, _of_vectors(vectors, [index[side] for side in sides], cohort, top_n)
        )
    else:
        statistics = {}
        if "test" in sides:
            statistics["test"] = _of_vectors(vectors, [test], cohort, top_n)
        if "enrol" in sides and enrolment == "n_best_mean":
            statistics["enrol"] = _of_n_best(vectors, table, enrol, cohort, top_n, n_best)
        elif "enrol" in sides:
            of_models = enrolment_vectors(vectors, table, enrolment)
            statistics["enrol"] = _of_vectors(of_models, [enrol], cohort, top_n)
    normalised = np.zeros(len(scores))
    for start in range(0, len(scores), TRIALS_PER_BLOCK):
        block = slice(start, start + TRIALS_PER_BLOCK)
        for side in sides:
            mean, std = statistics[side]
            rows = index[side][block]
            normalised[block] += (scores[block] - mean[rows]) / std[rows] / len(sides)
    return normalised


def _check_cohort(cohort: np.ndarray, size: int, top_n: int | None) -> np.ndarray:
    if cohort.shape[1] != size:
        raise ValueError(f"the cohort's embeddings have size {cohort.shape[1]}, the trials' {size}")
    if len(cohort) < 2:
        raise ValueError(
            f"a cohort of {len(cohort)} has no standard deviation: expected at least 2 embeddings"
        )
    if top_n is not None and top_n < 2:
        raise ValueError(f"top_n is {top_n}, expected at least 2, or None for the whole cohort")
    return cohort


def _of_vectors(vectors: np.ndarray, indices: list[np.ndarray], cohort: np.ndarray, top_n: int | None):
    """Return mean and standard deviation of the cohort scores of the vectors used."""
    if top_n is None or top_n >= len(cohort):
        mean, covariance = _mean_and_covariance(cohort)

        def of_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            used = vectors[rows].astype(np.float64)
            variance = np.einsum("nd,nd->n", used @ covariance, used)
            return used @ mean, np.sqrt(variance.clip(min=0))

        return _by_blocks(len(vectors), indices, vectors.shape[1], of_rows)
    return _by_blocks(
        len(vectors), indices, len(cohort), lambda rows: _of_highest(vectors[rows] @ cohort.T, top_n)
    )


def _of_n_best(
    vectors, table: np.ndarray, enrol: np.ndarray, cohort: np.ndarray, top_n: int | None, n_best: int
):
    """Return mean and standard deviation of the cohort scores of models, each an n-best mean."""

    def of_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        utterances = table[rows]
        have = utterances >= 0
        scores = np.full((*utterances.shape, len(cohort)), -np.inf, dtype=np.float32)
        scores[have] = vectors[utterances[have]] @ cohort.T
        return _of_highest(n_best_mean(scores, n_best), top_n)

    return _by_blocks(len(table), [enrol], table.shape[1] * len(cohort), of_rows)


def _by_blocks(number: int, indices: list[np.ndarray], values_each: int, of_rows: Callable):
    """Compute statistics of the rows in `indices`, each once, (number,) each; others stay undefined."""
    used = np.zeros(number, dtype=bool)
    for index in indices:
        used[index] = True
    rows = np.flatnonzero(used)
    mean, std = np.empty(number), np.ones(number)
    step = max(1, SCORES_PER_BLOCK // values_each)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        mean[block], std[block] = of_rows(block)
    # Equal cohort scores leave nothing but float32's rounding, about 1e-7, in the standard deviation.
    if number and std.min() < 1e-6:
        raise ValueError(
            "the cohort gives an utterance the same score with all its embeddings, so that scores cannot be "
            "normalised: choose different speakers, or more of them"
        )
    return mean, std


def _of_highest(scores: np.ndarray, top_n: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the highest scores of each row."""
    if top_n is not None and top_n < scores.shape[1]:
        scores = np.partition(scores, scores.shape[1] - top_n, axis=1)[:, -top_n:]
    return scores.mean(axis=1, dtype=np.float64), scores.std(axis=1, dtype=np.float64, ddof=1)


def _mean_and_covariance(cohort: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and the covariance (D, D) of the cohort, float64, by blocks of rows."""
    mean = cohort.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(cohort), 65536):
        centred = cohort[start : start + 65536] - mean
        covariance += centred.T @ centred
    return mean, covariance / (len(cohort) - 1)
