"""Cosine scores of trials, from one embedding an utterance."""

from collections.abc import Callable, Sequence

import numpy as np

from speechbrain_bccmt.arrays import as_array

# Trials looked at together: where they are most of the pairs of their utterances, one matrix product scores
# them.
TRIALS_PER_PRODUCT = 262_144
# Products computed for a trial at most: beyond, gathering the two embeddings of each trial is quicker.
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
        Enrolment utterance of each trial as row of `embeddings`, (M,); with `models`, the model of each trial.
    test : array_like of int
        Test utterance of each trial, (M,).
    models : sequence, optional
        The models that enrolled with several utterances: each an `EnrolmentModel`, or rows of `embeddings`.
    enrolment : str
        How a model's utterances become one: `mean_embedding`, `mean_score` or `n_best_mean`, see
        `enrolment_models`.
    n_best : int
        How many scores `n_best_mean` averages, at least 1.

    Returns
    -------
    numpy.ndarray
        Scores in [-1, 1], (M,), float32.

    Raises
    ------
    ValueError
        If shapes do not fit, an index is out of range, or an embedding is zero, NaN or infinite.

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


def _pair_products(left: np.ndarray, right: np.ndarray, enrol: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Multiply rows of `left` with rows of `right`, (M,), float32, clipped to [-1, 1]."""
    scores = np.empty(len(enrol), dtype=np.float32)
    # By enrolment: in lists that compare each model with many tests, neighbours then share both.
    order = None if (enrol[1:] >= enrol[:-1]).all() else np.argsort(enrol, kind="stable")
    for start in range(0, len(enrol), TRIALS_PER_PRODUCT):
        block = slice(start, start + TRIALS_PER_PRODUCT)
        rows = block if order is None else order[block]
        scores[rows] = _block_products(left, right, enrol[rows], test[rows])
    # Rounding may leave [-1, 1] by an ulp or two.
    return scores.clip(-1, 1, out=scores)


def _block_products(left: np.ndarray, right: np.ndarray, enrol: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Score some trials whose `enrol` ascends, by one matrix product or one product a trial."""
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


def unit_length(embeddings, kind: str = "embedding") -> np.ndarray:
    """Scale embeddings to unit length.

    Parameters
    ----------
    embeddings : array_like
        (N, D); numpy or torch.
    kind : str
        What a row is, for the message.

    Returns
    -------
    numpy.ndarray
        (N, D), float32.

    Raises
    ------
    ValueError
        If the shape is another, or a row is zero, NaN or infinite.

    Examples
    --------
    >>> unit_length([[3.0, 4.0]]).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    embeddings = as_array(embeddings, np.float32)
    if embeddings.ndim != 2:
        raise ValueError(f"{kind}s have shape {embeddings.shape}, expected (number, size)")
    # Squared in double precision: large values must not overflow, nor small ones vanish.
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {len(embeddings)} {kind}s are zero, NaN or infinite, first number {wrong[0]}"
        )
    # Divided in double precision, too, but never held so.
    return np.divide(embeddings, norms[:, None], out=np.empty_like(embeddings), casting="same_kind")


def side_direction(embeddings) -> np.ndarray:
    """Return the direction of a side of several utterances, which count alike; the product of two is their cosine.

    Parameters
    ----------
    embeddings : array_like
        (u, D), or one (D,); numpy or torch.

    Returns
    -------
    numpy.ndarray
        (D,), float64, of unit length; zeros where the utterances cancel out.

    Raises
    ------
    ValueError
        As `unit_length`, or if there is no embedding.

    Examples
    --------
    >>> round(float(side_direction([[2.0, 0.0], [0.0, 1.0]]) @ side_direction([1.0, 1.0])), 6)
    1.0
    """
    vectors = unit_length(np.atleast_2d(as_array(embeddings, np.float32)))
    if not vectors.size:
        raise ValueError(f"embeddings of shape {vectors.shape} make no side, expected (utterances, size)")
    mean = vectors.mean(axis=0, dtype=np.float64)
    return mean / (np.linalg.norm(mean) or 1.0)


def check_trials(
    enrol, test, n_embeddings: int, n_models: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the trials' indices into integer arrays that fit the embeddings.

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
        (M,), integers in [0, n_embeddings); `enrol` in [0, n_models) where that is given.

    Raises
    ------
    ValueError
        If shapes differ, or an index is no integer or out of range.
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


ENROLMENTS = ("mean_embedding", "mean_score", "n_best_mean")
# Scores held at once by the n-best mean, 4 bytes each: 16 MB.
SCORES_PER_BLOCK = 4_000_000


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
        (models, most utterances of one), integers; -1 where a model has fewer.

    Raises
    ------
    ValueError
        If there is no model, one has no utterance, or an index is no integer or out of range.

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
    """Refuse what is no way to enrol with several utterances.

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

    With embeddings of unit length, the product of such a mean with a test embedding is the mean of the cosines, so that
    it gives `mean_score` as it is, and `mean_embedding` after scaling to unit length.

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
    for column in table.T:  # as many steps as the longest model has utterances
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
        How many; all of a model that has fewer.

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
        Gives the scores (P,) of pairs of utterances (P,) and (P,).

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
