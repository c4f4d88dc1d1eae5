"""Cosine scores of trials, from one embedding an utterance."""

import numpy as np
import torch

# Rows gathered at once: 16384 trials of 192-dimensional embeddings take 25 MB, whatever the length of the
# list.
TRIALS_PER_BLOCK = 16384


def cosine_scores(embeddings, enrol, test) -> np.ndarray:
    """Score trials by the cosine of their two embeddings.

    Parameters
    ----------
    embeddings : array_like
        One embedding for each utterance, (N, D); numpy or torch, of any length.
    enrol : array_like of int
        Enrolment utterance of each trial as row of `embeddings`, (M,).
    test : array_like of int
        Test utterance of each trial, (M,).

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
    """
    embeddings = unit_length(embeddings)
    enrol, test = check_trials(enrol, test, len(embeddings))
    scores = np.empty(len(enrol), dtype=np.float32)
    for start in range(0, len(enrol), TRIALS_PER_BLOCK):
        block = slice(start, start + TRIALS_PER_BLOCK)
        scores[block] = np.einsum("td,td->t", embeddings[enrol[block]], embeddings[test[block]])
    # Rounding may leave [-1, 1] by an ulp or two.
    return scores.clip(-1, 1, out=scores)


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
    if isinstance(embeddings, torch.Tensor):
        embeddings = embeddings.detach().float().cpu().numpy()
    embeddings = np.asarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2:
        raise ValueError(f"{kind}s have shape {embeddings.shape}, expected (number, size)")
    # Squared in double precision: large values must not overflow, nor small ones vanish.
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    wrong = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {len(embeddings)} {kind}s are zero, NaN or infinite, first number {wrong[0]}"
        )
    return (embeddings / norms[:, None]).astype(np.float32)


def check_trials(enrol, test, n_embeddings: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn the trials' indices into integer arrays that fit the embeddings.

    Parameters
    ----------
    enrol, test : array_like of int
        Indices, (M,) each; numpy or torch.
    n_embeddings : int
        Number of embeddings that they point into.

    Returns
    -------
    enrol, test : numpy.ndarray
        (M,), integers in [0, n_embeddings).

    Raises
    ------
    ValueError
        If shapes differ, or an index is no integer or out of range.
    """
    indices = []
    for name, index in (("enrol", enrol), ("test", test)):
        index = index.detach().cpu().numpy() if isinstance(index, torch.Tensor) else np.asarray(index)
        if index.ndim != 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
            raise ValueError(
                f"{name} has shape {index.shape} and type {index.dtype}, expected integers (trials,)"
            )
        if index.size and (index.min() < 0 or index.max() >= n_embeddings):
            raise ValueError(
                f"{name} points at utterances {index.min()} to {index.max()}, but there are "
                f"{n_embeddings} embeddings"
            )
        indices.append(index.astype(np.intp))
    if len(indices[0]) != len(indices[1]):
        raise ValueError(f"enrol has {len(indices[0])} trials and test {len(indices[1])}: expected as many")
    return indices[0], indices[1]
