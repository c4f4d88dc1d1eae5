"""Estimation of a PLDA: the directions of LDA, and the two maximum-likelihood covariances.

Axes: n embeddings, d size of an embedding, k size after LDA, s speakers.
"""

import numpy as np
from scipy import linalg

# Directions whose standard deviation is below this share of the largest one are rounding.
SMALLEST_DEVIATION = 1e-5


def check_speakers(labels: np.ndarray, counts: np.ndarray, embeddings: np.ndarray, n_iterations: int) -> None:
    """Reject data that PLDA cannot be fitted on.

    Parameters
    ----------
    labels : numpy.ndarray of int
        Speaker of each embedding as index into `counts`, (n,).
    counts : numpy.ndarray of int
        Utterances of each speaker, (s,).
    embeddings : numpy.ndarray
        (n, d).
    n_iterations : int
        EM iterations.

    Raises
    ------
    ValueError
        If sizes differ, there are fewer than two speakers, none has two utterances, or there is no iteration.
    """
    if labels.shape != (len(embeddings),):
        raise ValueError(f"{labels.size} speakers for {len(embeddings)} embeddings: expected as many")
    if len(counts) < 2:
        raise ValueError(f"PLDA needs embeddings of at least 2 speakers, there are {len(counts)}")
    if counts.max() < 2:
        raise ValueError(
            f"each of the {len(counts)} speakers has one utterance: PLDA needs several, to separate speakers from "
            "utterances"
        )
    if n_iterations < 1:
        raise ValueError(f"n_iterations is {n_iterations}, expected at least 1")


def lda_projection(
    centred: np.ndarray, labels: np.ndarray, counts: np.ndarray, lda_dim: int | None
) -> np.ndarray:
    """Find the directions in which speakers differ most, relative to utterances of one speaker.

    Generalised eigenvectors of the between- and the within-speaker scatter matrices (Fukunaga 1990); in them
    the latter is the identity.

    Parameters
    ----------
    centred : numpy.ndarray
        Embeddings of mean 0, (n, d).
    labels, counts : numpy.ndarray of int
        See `check_speakers`.
    lda_dim : int or None
        Directions to keep; None keeps all in which the embeddings vary.

    Returns
    -------
    numpy.ndarray
        (d, k), the best direction first.

    Raises
    ------
    ValueError
        If `lda_dim` is out of range, or there are too few utterances or they vary too little.
    """
    number, size = centred.shape
    if lda_dim is not None and not 2 <= lda_dim <= min(size, len(counts) - 1):
        raise ValueError(
            f"lda_dim is {lda_dim}, expected from 2 to {min(size, len(counts) - 1)}: embeddings have size "
            f"{size}, and {len(counts)} speakers span {len(counts) - 1} dimensions"
        )
    total = centred.T @ centred / number
    # Directions without variance, such as an output that never fires, cannot be whitened.
    variances, axes = linalg.eigh(total)
    axes = axes[:, variances > SMALLEST_DEVIATION**2 * variances[-1]]
    rank = axes.shape[1] if variances[-1] > 0 else 0
    if rank < (lda_dim or 2):
        raise ValueError(f"embeddings vary in {rank} dimensions only: PLDA needs {lda_dim or 2}")
    if number - len(counts) < rank:
        raise ValueError(
            f"{number} utterances of {len(counts)} speakers are too few for a within-speaker covariance of "
            f"size {rank}: expected at least {rank} more utterances than speakers"
        )
    means = _speaker_sums(centred, labels, counts) / counts[:, None]
    between = axes.T @ (means.T * (counts / number)) @ means @ axes
    within = axes.T @ total @ axes - between
    if np.trace(within) < 1e-9 * np.trace(total):
        raise ValueError("the utterances of each speaker do not differ: PLDA cannot be fitted")
    # Utterances that are copies of each other leave directions without within-speaker variance.
    within += 1e-9 * np.trace(within) / rank * np.eye(rank)
    _, directions = linalg.eigh(between, within)
    return axes @ directions[:, ::-1][:, :lda_dim]


def _speaker_sums(rows: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    ordered = rows[np.argsort(labels, kind="stable")]
    return np.add.reduceat(ordered, np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)


def two_covariances(rows: np.ndarray, labels: np.ndarray, counts: np.ndarray, n_iterations: int):
    """Estimate the full-rank maximum-likelihood covariances by the EM of SpeechBrain's `PLDA`.

    Parameters
    ----------
    rows : numpy.ndarray
        (n, k), of variance about 1, which is what the solver starts from.
    labels, counts : numpy.ndarray of int
        See `check_speakers`.
    n_iterations : int
        EM iterations.

    Returns
    -------
    centre : numpy.ndarray
        Mean of all, (k,).
    between, within : numpy.ndarray
        Covariance of the speakers, and of a speaker's utterances, (k, k).

    Raises
    ------
    ValueError
        If a covariance becomes singular.
    """
    from speechbrain.processing.PLDA_LDA import PLDA as Solver
    from speechbrain.processing.PLDA_LDA import StatObject_SB

    number = len(rows)

    class Statistics(StatObject_SB):
        def sum_stat_per_model(self):
            # The inherited one compares every name with every speaker: hours for VoxCeleb2.
            sums = StatObject_SB()
            sums.modelset = sums.segset = np.arange(len(counts))
            sums.stat0 = counts[:, None].astype(np.float64)
            sums.stat1 = _speaker_sums(self.stat1, labels, counts)
            return sums, counts.astype(np.float64)

    nothing = np.full(number, None)
    statistics = Statistics(labels, np.arange(number), nothing, nothing, np.ones((number, 1)), rows)
    solver = Solver(rank_f=rows.shape[1], nb_iter=n_iterations)
    try:
        with np.errstate(divide="raise", invalid="raise"):
            solver.plda(statistics)
    except (linalg.LinAlgError, FloatingPointError, ValueError) as error:
        raise ValueError(
            f"PLDA cannot be fitted on {number} utterances of {len(counts)} speakers, as a covariance of size "
            f"{rows.shape[1]} became singular: give more utterances, or a smaller lda_dim"
        ) from error
    return solver.mean, solver.F @ solver.F.T, solver.Sigma
