"""Memory layer: a learned table of keys and values that every frame and token looks up.

Axes: b batch, n position (tokens, then frames), d channel, h head, k key or slot.

Sources: Lample et al. 2019 (arXiv 1907.05242), section 3 and their official code: flat and product keys, softmax over
the selected keys, one set of keys per head, shared values, heads summed. Mingote et al. (SdSV 2020) compare the input
with all keys, select the highest, and concatenate the result with the attention's output. Sizes, the scale of the
scores and the projection after the concatenation are our reading.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to this many slots, a row of weights over the whole table (mostly zeros) is faster than gathering the selected
# values: on one CPU thread, 4 against 24 ms at 64 slots, 28 against 29 ms at 1024, 102 against 38 ms at 4096.
DENSE_KEYS = 1024


class Memory(nn.Module):
    """Look up each position in a learned table: all keys scored, the best ones selected, their values averaged.

    Parameters
    ----------
    channels : int
        Size d of a position, and of a value.
    keys : int
        Slots of the table. Product keys need a square number: n * n slots share 2 n half keys, which makes exact
        search of a large table as cheap as of a small one.
    top_k : int
        Slots selected per position; at most `keys`.
    key_size : int
        Size of a key; even for product keys.
    heads : int
        Queries of a position, each with its own keys; their results are summed.
    product_keys : bool
        Product keys rather than flat ones.

    Raises
    ------
    ValueError
        For numbers that do not fit together.

    Notes
    -----
    With one key there is nothing to select and the output is constant; with `top_k` equal to `keys` the layer attends
    over the whole table.

    Examples
    --------
    >>> memory = Memory(8, keys=16, top_k=4, key_size=6, product_keys=True)
    >>> memory(torch.rand(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        channels: int,
        keys: int = 64,
        top_k: int = 16,
        key_size: int = 32,
        heads: int = 1,
        product_keys: bool = False,
    ):
        super().__init__()
        for name, value in (("keys", keys), ("key_size", key_size), ("heads", heads)):
            if value < 1:
                raise ValueError(f"{name}={value} of the memory must be at least 1")
        if not 1 <= top_k <= keys:
            raise ValueError(f"top_k={top_k} of the memory must be from 1 to keys={keys}")
        self.heads, self.top_k, self.product_keys = heads, top_k, product_keys
        self.query = nn.Linear(channels, heads * key_size)
        if product_keys:
            self.half_keys = math.isqrt(keys)
            if self.half_keys**2 != keys or key_size % 2:
                raise ValueError(
                    f"product keys need a square number of keys and an even key_size, got keys={keys} and "
                    f"key_size={key_size}"
                )
            self.keys = nn.Parameter(torch.empty(2, heads, self.half_keys, key_size // 2))
        else:
            self.keys = nn.Parameter(torch.empty(heads, keys, key_size))
        self.values = nn.Parameter(torch.empty(keys, channels))
        # As in the official code of Lample et al.: keys uniform, values normal.
        nn.init.uniform_(self.keys, -(self.keys.shape[-1] ** -0.5), self.keys.shape[-1] ** -0.5)
        nn.init.normal_(self.values, std=channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Look up (batch, positions, channels); return the same shape."""
        b, n, _ = x.shape
        query = self.query(x).reshape(b, n, self.heads, -1).transpose(1, 2)
        # Scaled before the product, which could otherwise overflow half precision.
        scores, slots = self._select(query * query.shape[-1] ** -0.5)
        weights = scores.softmax(-1)
        keys = self.values.shape[0]
        if keys > DENSE_KEYS:
            return (
                (weights.unsqueeze(-2) @ F.embedding(slots, self.values).to(weights.dtype)).squeeze(-2).sum(1)
            )
        table = weights.new_zeros(b, self.heads, n, keys).scatter(-1, slots, weights)
        return table.sum(1) @ self.values.to(table.dtype)

    def _select(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and slots (b, h, n, top_k) of the best keys for queries (b, h, n, key size)."""
        if not self.product_keys:
            return (query @ self.keys.transpose(1, 2)).topk(self.top_k, dim=-1)
        # The best pairs are always among the pairs of the best halves.
        few = min(self.top_k, self.half_keys)
        first, second = (
            (half @ keys.transpose(1, 2)).topk(few, dim=-1)
            for half, keys in zip(query.chunk(2, dim=-1), self.keys, strict=True)
        )
        scores = (first[0].unsqueeze(-1) + second[0].unsqueeze(-2)).flatten(-2)
        slots = (first[1].unsqueeze(-1) * self.half_keys + second[1].unsqueeze(-2)).flatten(-2)
        scores, best = scores.topk(self.top_k, dim=-1)
        return scores, slots.gather(-1, best)
