"""Long recordings in exported graphs: cut into equal chunks whose embeddings are averaged, as in the interface.

Attention over time is quadratic in length; with chunks of bounded length a graph's time and memory are linear. All
sizes are computed within the graph, which has no branches or loops.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cut(x: Tensor, longest: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Cut the rows of a batch into the fewest chunks no longer than `longest`, and put them into one batch.

    Parameters
    ----------
    x : Tensor
        (batch, samples) or (batch, frames, mels): positions are samples or frames.
    longest : int
        The longest chunk, in positions.
    valid : Tensor or None
        (batch,), number of valid positions in each row; None: all.

    Returns
    -------
    chunks : Tensor
        (batch * chunks of a row, positions, ...). Chunks of a row have equal length; the remainder, fewer positions
        than there are chunks, is dropped.
    valid : Tensor or None
        (batch * chunks of a row,), number of valid positions in each chunk, or None as before.
    weights : Tensor
        For `join`.

    Examples
    --------
    >>> chunks, _, weights = cut(torch.arange(7.0)[None], longest=3)
    >>> chunks.tolist(), join(chunks.sum(1, keepdim=True), weights).tolist()
    ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[5.0]])
    """
    if valid is None:
        count = _at_least_one((x.shape[1] + longest - 1) // longest)
        size = x.shape[1] // count
        chunks = x[:, : count * size].reshape(x.shape[0] * count, size, *x.shape[2:])
        return chunks, None, x.new_ones(1, count) / count
    valid = valid.clamp(max=x.shape[1])
    counts = ((valid + longest - 1) // longest).clamp(min=1)
    sizes = valid // counts
    number = torch.arange(counts.max(), device=x.device)[None]
    position = torch.arange(sizes.max(), device=x.device)
    index = (number * sizes[:, None])[:, :, None] + position
    rows = torch.arange(x.shape[0], device=x.device)[:, None, None]
    chunks = x[rows, index.clamp(max=x.shape[1] - 1)]
    # Zeros after shorter chunks, as a front end may look at the loudest value of its input.
    keep = (position < sizes[:, None])[:, None]
    chunks = torch.where(keep if x.ndim == 2 else keep[..., None], chunks, 0).flatten(0, 1)
    weights = (number < counts[:, None]) / counts[:, None]
    return chunks, sizes[:, None].expand(-1, number.shape[1]).reshape(-1), weights


def _at_least_one(count):
    """Return `count`, or 1 if it is 0, for plain and traced numbers: even empty input has one chunk."""
    return (count + 1 + abs(count - 1)) // 2


def join(embeddings: Tensor, weights: Tensor) -> Tensor:
    """Average the embeddings of chunks, (batch * chunks of a row, size), per row, (batch, size)."""
    embeddings = embeddings.reshape(-1, weights.shape[1], embeddings.shape[1])
    return (embeddings * weights[:, :, None]).sum(1)
