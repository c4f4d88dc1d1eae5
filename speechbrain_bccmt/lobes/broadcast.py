"""Broadcasted residual learning: frequency work in 2-D, everything else in 1-D and broadcast back.

Axes: b batch, c channel, f frequency, t time (frames).

Source: BC-ResNet (arXiv 2106.04140), section 2: y = x + f2(x) + BC(f1(mean over frequency of f2(x))), f2 a
frequency depth-wise convolution with sub-spectral normalisation, f1 a temporal depth-wise separable convolution.
BC-CMT puts this residual into every part of the CMT block; how it does so is our reading.
"""

from __future__ import annotations

from torch import Tensor, nn


class SubSpectralNorm(nn.Module):
    """Batch norm with separate statistics for each sub-band of the frequency axis.

    Parameters
    ----------
    channels : int
        Channels of the input.
    subbands : int
        Number of sub-bands; must divide the number of frequencies of the input.

    Notes
    -----
    Source: BC-ResNet, section 2.2, and its official code (one affine pair per channel and sub-band).

    Examples
    --------
    >>> import torch
    >>> SubSpectralNorm(4, subbands=5)(torch.rand(2, 4, 20, 7)).shape
    torch.Size([2, 4, 20, 7])
    """

    def __init__(self, channels: int, subbands: int):
        super().__init__()
        self.subbands = subbands
        self.norm = nn.BatchNorm2d(channels * subbands)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, channels, frequencies, frames)."""
        b, c, f, t = x.shape
        return self.norm(x.reshape(b, c * self.subbands, f // self.subbands, t)).reshape(b, c, f, t)


class FrequencyConv(nn.Sequential):
    """The f2 of broadcasted residual learning: depth-wise convolution along frequency, sub-spectral norm.

    Parameters
    ----------
    channels : int
        Channels of input and output.
    subbands : int
        Sub-bands of the norm.

    Examples
    --------
    >>> import torch
    >>> FrequencyConv(4, subbands=5)(torch.rand(2, 4, 20, 7)).shape
    torch.Size([2, 4, 20, 7])
    """

    def __init__(self, channels: int, subbands: int):
        super().__init__(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels, bias=False),
            SubSpectralNorm(channels, subbands),
        )


class TemporalUnit(nn.Module):
    """The f1 of the local perception unit: temporal depth-wise convolution, norm, activation, point-wise convolution.

    Parameters
    ----------
    channels : int
        Channels of input and output.
    kernel_size : int
        Odd kernel of the depth-wise convolution, in frames.
    dropout : float
        Probability that a channel is dropped in training.

    Examples
    --------
    >>> import torch
    >>> TemporalUnit(4)(torch.rand(2, 4, 9)).shape
    torch.Size([2, 4, 9])
    """

    def __init__(self, channels: int, kernel_size: int = 3, dropout: float = 0.0):
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False
        )
        self.norm = nn.BatchNorm1d(channels)
        self.pointwise = nn.Conv1d(channels, channels, 1, bias=False)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (batch, channels, frames); `mask` (batch, 1, frames) zeroes the padding that the kernel would see."""
        if mask is not None:
            x = x * mask
        return self.dropout(self.pointwise(nn.functional.silu(self.norm(self.depthwise(x)))))


class InvertedResidualUnit(nn.Module):
    """The f1 of the feed-forward part: CMT's inverted residual (IRFFN) in one dimension.

    Expand, activation, norm; temporal depth-wise convolution with a shortcut, activation, norm; project, norm.

    Parameters
    ----------
    channels : int
        Channels of input and output.
    hidden : int
        Inner channels.
    kernel_size : int
        Odd kernel of the depth-wise convolution, in frames.
    dropout : float
        Probability that a channel is dropped in training.

    Notes
    -----
    Source: CMT (arXiv 2107.06263), section 3.4; norm and activation in the order of its official code.

    Examples
    --------
    >>> import torch
    >>> InvertedResidualUnit(4, hidden=8)(torch.rand(2, 4, 9)).shape
    torch.Size([2, 4, 9])
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int = 3, dropout: float = 0.0):
        super().__init__()
        self.expand = nn.Conv1d(channels, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm1d(hidden)
        self.depthwise = nn.Conv1d(
            hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden, bias=False
        )
        self.depthwise_norm = nn.BatchNorm1d(hidden)
        self.project = nn.Conv1d(hidden, channels, 1, bias=False)
        self.project_norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (batch, channels, frames); `mask` (batch, 1, frames) zeroes the padding that the kernel would see."""
        x = self.expand_norm(nn.functional.gelu(self.expand(x)))
        if mask is not None:
            x = x * mask
        x = self.depthwise_norm(nn.functional.gelu(x + self.depthwise(x)))
        return self.dropout(self.project_norm(self.project(x)))


def frequency_mean(x: Tensor) -> Tensor:
    """Average (batch, channels, frequencies, frames) over frequency, to (batch, channels, frames)."""
    return x.mean(2)


def broadcast(x: Tensor, y: Tensor) -> Tensor:
    """Add `y` (batch, channels, frames) to every frequency of `x` (batch, channels, frequencies, frames).

    Examples
    --------
    >>> import torch
    >>> broadcast(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 3)).sum().item()
    6.0
    """
    return x + y.unsqueeze(2)
