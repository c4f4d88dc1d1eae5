"""Embeddings as directions."""

import numpy as np

from speechbrain_bccmt.arrays import as_array


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
        If the shape is wrong, or a row is zero, NaN or infinite.

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
    # Also divided in double precision, but never stored in it.
    return np.divide(embeddings, norms[:, None], out=np.empty_like(embeddings), casting="same_kind")


def side_direction(embeddings) -> np.ndarray:
    """Return the direction of a side, whose utterances count equally; the product of two directions is their cosine.

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
