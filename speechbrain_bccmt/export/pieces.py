"""Long recordings in exported graphs: cut into equal pieces, whose embeddings are averaged, as the interface does.

Attention over time is quadratic in length; with pieces of bounded length a graph's time and memory are linear. All
sizes are computed within the graph, which has neither a branch nor a loop.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cut(x: Tensor, longest: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Cut the rows of a batch into the fewest pieces that are not above `longest`, and put them into one batch.

    Parameters
    ----------
    x : Tensor
        (batch, samples) or (batch, frames, mels): positions are samples or frames.
    longest : int
        The longest piece, in positions.
    valid : Tensor or None
        (batch,), how many positions of each row count; None: all.

    Returns
    -------
    pieces : Tensor
        (batch * pieces of a row, positions, ...). Pieces of a row are of one length; what is left over, fewer positions
        than there are pieces, is left out.
    valid : Tensor or None
        (batch * pieces of a row,), how many positions of each piece count, or None as before.
    weights : Tensor
        For `join`.

    Examples
    --------
    >>> pieces, _, weights = cut(torch.arange(7.0)[None], longest=3)
    >>> pieces.tolist(), join(pieces.sum(1, keepdim=True), weights).tolist()
    ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[5.0]])
    """
    if valid is None:
        count = _at_least_one((x.shape[1] + longest - 1) // longest)
        size = x.shape[1] // count
        pieces = x[:, : count * size].reshape(x.shape[0] * count, size, *x.shape[2:])
        return pieces, None, x.new_ones(1, count) / count
    valid = valid.clamp(max=x.shape[1])
    counts = ((valid + longest - 1) // longest).clamp(min=1)
    sizes = valid // counts
    number = torch.arange(counts.max(), device=x.device)[None]
    position = torch.arange(sizes.max(), device=x.device)
    index = (number * sizes[:, None])[:, :, None] + position
    rows = torch.arange(x.shape[0], device=x.device)[:, None, None]
    pieces = x[rows, index.clamp(max=x.shape[1] - 1)]
    # Zeros behind shorter pieces: a front end may look at the loudest of all that it is given.
    keep = (position < sizes[:, None])[:, None]
    pieces = torch.where(keep if x.ndim == 2 else keep[..., None], pieces, 0).flatten(0, 1)
    weights = (number < counts[:, None]) / counts[:, None]
    return pieces, sizes[:, None].expand(-1, number.shape[1]).reshape(-1), weights


def _at_least_one(count):
    """Give `count`, but 1 for 0, where it may be a number or a traced one: nothing is cut into no pieces."""
    return (count + 1 + abs(count - 1)) // 2


def join(embeddings: Tensor, weights: Tensor) -> Tensor:
    """Average the embeddings of pieces, (batch * pieces of a row, size), to those of rows, (batch, size)."""
    embeddings = embeddings.reshape(-1, weights.shape[1], embeddings.shape[1])
    return (embeddings * weights[:, :, None]).sum(1)
