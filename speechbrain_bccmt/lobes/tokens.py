"""Tokens: learned vectors prepended to the frames, which attend to them and become the embedding.

Axes: b batch, n position (tokens, then frames), t frame, d channel, h head.

Sources: Mingote et al. (Digital Signal Processing 133, 2023; arXiv 2111.03842), of which we know the abstract: a class
token concatenated to the input before the first self-attention layer, drawn from a list of R trainable vectors, and a
distillation token beside it. DeiT (arXiv 2012.12877) for the form of the two tokens. Drawing one vector per utterance,
using the first at inference, the norms and the residuals are our reading.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import GroupedSelfAttention
from speechbrain_bccmt.lobes.memory import Memory


class Tokens(nn.Module):
    """The class token, drawn from R vectors in training, and optionally the distillation token.

    Parameters
    ----------
    channels : int
        Size d of a token.
    class_tokens : int
        R; 1 is the plain class token.
    distillation : bool
        Add a distillation token.

    Raises
    ------
    ValueError
        If R is below one.

    Notes
    -----
    In training each utterance draws one of the R vectors with equal probability; inference always uses the first, so
    the embedding is not random. The mean of the vectors, which training never sees, makes more errors, and the mean of
    the R embeddings no fewer (docs/text_dependent.md).

    Examples
    --------
    >>> Tokens(8, class_tokens=5, distillation=True)(torch.rand(2, 10, 8)).shape
    torch.Size([2, 12, 8])
    """

    def __init__(self, channels: int, class_tokens: int = 1, distillation: bool = False):
        super().__init__()
        if class_tokens < 1:
            raise ValueError(f"class_tokens={class_tokens} must be at least 1")
        self.class_vectors = nn.Parameter(torch.empty(class_tokens, channels))
        self.distillation_vector = nn.Parameter(torch.empty(1, channels)) if distillation else None
        for vectors in (self.class_vectors, self.distillation_vector):
            if vectors is not None:
                nn.init.trunc_normal_(vectors, std=0.02)

    @property
    def count(self) -> int:
        """Number of tokens before the frames."""
        return 1 if self.distillation_vector is None else 2

    def forward(self, frames: Tensor) -> Tensor:
        """Prepend the tokens to (batch, frames, channels): class, distillation, then the frames."""
        b = frames.shape[0]
        available = self.class_vectors.shape[0]
        if self.training and available > 1:
            drawn = torch.randint(available, (b,), device=frames.device)
            class_token = self.class_vectors[drawn].unsqueeze(1)
        else:
            class_token = self.class_vectors[:1].expand(b, 1, -1)
        parts = [class_token.to(frames.dtype)]
        if self.distillation_vector is not None:
            parts.append(self.distillation_vector.to(frames.dtype).expand(b, 1, -1))
        return torch.cat([*parts, frames], dim=1)


class _ChannelNorm(nn.LayerNorm):
    """Layer norm of each position of (batch, channels, positions): no position, padded or not, sees another."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class TokenSelfAttention(GroupedSelfAttention):
    """Multi-head self-attention among tokens and frames, with a norm before it and none after.

    Parameters
    ----------
    channels, heads, groups : int
        See `GroupedSelfAttention`.

    Examples
    --------
    >>> y, weights = TokenSelfAttention(8, heads=2)(torch.rand(3, 11, 8), with_map=True)
    >>> y.shape, weights.shape
    (torch.Size([3, 11, 8]), torch.Size([3, 2, 11, 11]))
    """

    def __init__(self, channels: int, heads: int, groups: int = 1):
        super().__init__(channels, heads, groups, nn.Conv1d, _ChannelNorm)
        # A norm here would give the branch the same size for every input, silence included.
        self.output_norm = nn.Identity()

    def forward(self, x: Tensor, keep: Tensor | None = None, with_map: bool = False):
        """Attend among (batch, positions, channels); `keep` (batch, positions) marks what may be attended to.

        Returns
        -------
        tuple
            Output of the same shape; map (batch, heads, query positions, key positions) or None.
        """
        x = self.norm(x.transpose(1, 2))
        attended, weights = self._attend(x, x, keep, with_map)
        return attended.transpose(1, 2), weights


def _initialise(module: nn.Module) -> None:
    """Initialise as `torch.nn.MultiheadAttention` does.

    PyTorch's default for convolutions has a gain of 1 / sqrt(3), and the values pass two of them: a token, which sees
    the frames only through attention, would learn little from a batch (docs/results.md).
    """
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class TokenBlock(nn.Module):
    """Self-attention, then optionally a memory layer and a feed-forward part, each added to what came before.

    The memory's output is concatenated with the attention's and projected, as in Mingote et al. (SdSV 2020).

    Parameters
    ----------
    channels, heads : int
        Options of the self-attention.
    memory : Memory or None
        The memory layer.
    feed_forward : int
        Inner channels of the feed-forward part; 0: none.
    dropout : float
        Dropout on the added parts in training.

    Examples
    --------
    >>> block = TokenBlock(8, heads=2, memory=Memory(8, keys=4, top_k=2), feed_forward=16)
    >>> block(torch.rand(3, 11, 8))[0].shape
    torch.Size([3, 11, 8])
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        memory: Memory | None = None,
        feed_forward: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.attention = TokenSelfAttention(channels, heads)
        self.memory = memory
        if memory is not None:
            self.memory_norm = nn.LayerNorm(channels)
            self.join = nn.Linear(2 * channels, channels)
        self.feed_forward = None
        if feed_forward:
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, feed_forward),
                nn.GELU(),
                nn.Linear(feed_forward, channels),
            )
        self.dropout = dropout
        for name, part in self.named_children():
            if name != "memory":  # which has its own initialisation
                part.apply(_initialise)

    def forward(self, x: Tensor, keep: Tensor | None = None, with_map: bool = False):
        """Map (batch, positions, channels) to the same shape; also return the attention map or None."""
        attended, weights = self.attention(x, keep, with_map)
        x = x + self._drop(attended)
        if self.memory is not None:
            y = self.memory_norm(x)
            x = x + self._drop(self.join(torch.cat([y, self.memory(y)], dim=-1)))
        if self.feed_forward is not None:
            x = x + self._drop(self.feed_forward(x))
        return x, weights

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
