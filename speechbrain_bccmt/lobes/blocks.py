"""Building parts of BC-CMT's stages: the block, and the strided convolution that opens a stage.

Axes: b batch, c channel, f frequency, t time (frames).

Sources: CMT (arXiv 2107.06263) for the block's three parts, BC-ResNet (arXiv 2106.04140) for the broadcast residual
of each. The way BC-CMT (IEEE/ACM TASLP 32, 2024) combines them is our reading.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import FrequencyTimeSelfAttention, TemporalSelfAttention
from speechbrain_bccmt.lobes.broadcast import (
    FrequencyConv,
    InvertedResidualUnit,
    TemporalUnit,
    broadcast,
    frequency_mean,
)


class Block(nn.Module):
    """One BC-CMT block: local perception unit, self-attention and inverted feed-forward, each broadcast.

    Parameters
    ----------
    channels, hidden : int
        Channels of the map, and inner channels of the feed-forward part.
    heads, groups, key_reduction : int
        Options of the self-attention.
    subbands : int
        Sub-bands of the sub-spectral norms.
    attention : str
        "temporal" or "frequency_time".
    kernel_size : int
        Kernel of the temporal depth-wise convolutions, in frames.
    dropout : float
        Dropout on the broadcast branches in training.

    Examples
    --------
    >>> import torch
    >>> block = Block(8, hidden=16, heads=2, groups=2, key_reduction=2, subbands=5)
    >>> y, weights = block(torch.rand(3, 8, 10, 12), with_map=True)
    >>> y.shape, weights.shape
    (torch.Size([3, 8, 10, 12]), torch.Size([3, 2, 12, 6]))
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        heads: int,
        groups: int,
        key_reduction: int,
        subbands: int,
        attention: str = "temporal",
        kernel_size: int = 3,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.temporal = attention == "temporal"
        self.local_frequency = FrequencyConv(channels, subbands)
        self.local_time = TemporalUnit(channels, kernel_size, dropout)
        form = TemporalSelfAttention if self.temporal else FrequencyTimeSelfAttention
        self.attention = form(channels, heads, groups, key_reduction)
        self.feed_frequency = FrequencyConv(channels, subbands)
        self.feed_time = InvertedResidualUnit(channels, hidden, kernel_size, dropout)
        self._start_as_identity()

    def _start_as_identity(self):
        """Initialise every residual branch to zero; without this, training takes several times as many steps."""
        last_layers = (
            self.local_frequency[-1].norm,
            self.local_time.pointwise,
            self.attention.output_norm,
            self.feed_frequency[-1].norm,
            self.feed_time.project_norm,
        )
        for layer in last_layers:
            nn.init.zeros_(layer.weight)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, mask: Tensor | None = None, with_map: bool = False
    ):
        """Map (batch, channels, frequencies, frames) to the same shape; also return the attention map or None."""
        y = self.local_frequency(x)
        local = self.local_time(frequency_mean(y), mask)
        x = x + y
        if self.temporal:
            # The local perception unit's mean over frequency is known without building its output, so both broadcasts
            # become one addition to the 2-D map, the costly step here.
            attended, weights = self.attention(frequency_mean(x) + local, valid, with_map)
            x = broadcast(x, local + attended)
        else:
            x = broadcast(x, local)
            attended, weights = self.attention(x, valid, with_map)
            x = x + attended
        y = self.feed_frequency(x)
        return F.relu(broadcast(x + y, self.feed_time(frequency_mean(y), mask))), weights


class Downsample(nn.Sequential):
    """Strided convolution that opens a stage, the only place where channels mix at every frequency and frame.

    Parameters
    ----------
    channels_in, channels_out : int
        Channels before and after.
    stride : tuple of int
        Along frequency and time.

    Notes
    -----
    A full kernel, not a depth-wise one: at similar size its EER was clearly lower (docs/skeleton.md).

    Examples
    --------
    >>> import torch
    >>> Downsample(4, 8, stride=(2, 1))(torch.rand(2, 4, 20, 7)).shape
    torch.Size([2, 8, 10, 7])
    """

    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int]):
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )
