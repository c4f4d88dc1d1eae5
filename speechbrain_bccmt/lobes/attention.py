"""Self-attention of the BC-CMT block, over time alone or over the frequency-time plane.

Axes: b batch, c channel, f frequency, t time (frames), h head, q query position, k key position.

Sources: BC-CMT (Choi et al., Interspeech 2022 and IEEE/ACM TASLP 32, 2024) names the two forms and their group
convolutions; CMT (arXiv 2107.06263, section 3.3) describes the lightweight attention whose keys and values come from
a map reduced by a strided depth-wise convolution. Kernel sizes, norms and group counts are our reading.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Convert relative lengths to numbers of valid frames.

    Parameters
    ----------
    lengths : Tensor
        (batch,), in (0, 1], relative to the longest utterance of the batch.
    frames : int
        Number of frames of the padded batch.

    Returns
    -------
    Tensor
        (batch,), whole numbers from 1 to `frames`.

    Examples
    --------
    >>> valid_frames(torch.tensor([1.0, 0.5, 0.001]), 100).tolist()
    [100, 50, 1]
    """
    return (lengths * frames).round().long().clamp(min=1, max=frames)


def conv_output_length(positions, stride: int):
    """Count the positions (int or Tensor) that a centred convolution with `stride` leaves.

    Examples
    --------
    >>> conv_output_length(torch.tensor([1, 4, 5]), 2).tolist(), conv_output_length(11, 2)
    ([1, 2, 3], 6)
    """
    return (positions - 1) // stride + 1


def frame_mask(valid: Tensor, frames: int) -> Tensor:
    """Mark the valid frames of a padded batch.

    Parameters
    ----------
    valid : Tensor
        (batch,), number of valid frames of each utterance.
    frames : int
        Number of frames of the padded batch.

    Returns
    -------
    Tensor
        (batch, frames), True where the frame belongs to the utterance.

    Examples
    --------
    >>> frame_mask(torch.tensor([2, 3]), 3).tolist()
    [[True, True, False], [True, True, True]]
    """
    return torch.arange(frames, device=valid.device)[None] < valid[:, None]


def reduction_conv(conv: type[nn.Module], channels: int, stride: int) -> nn.Module:
    """Depth-wise convolution that shrinks keys and values by `stride`; the identity for a stride of one.

    The kernel is odd and centred: n positions always become ceil(n / stride), even a single one, and zero padding at
    the end equals the zeros of a masked batch.
    """
    if stride == 1:
        return nn.Identity()
    half = stride // 2
    return conv(channels, channels, 2 * half + 1, stride=stride, padding=half, groups=channels, bias=False)


class GroupedSelfAttention(nn.Module):
    """Base of both forms: grouped projections, heads, and either a fused kernel or visible attention maps.

    Parameters
    ----------
    channels : int
        Channels of input and output.
    heads : int
        Number of heads; must divide `channels`.
    groups : int
        Groups of the 1x1 projections; must divide `channels`.
    conv : type
        `torch.nn.Conv1d` or `torch.nn.Conv2d`.
    norm : type
        Matching batch norm.
    key_reduction : int
        Stride of the depth-wise convolution over keys and values.

    Raises
    ------
    ValueError
        If heads or groups do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        conv: type[nn.Module],
        norm: type[nn.Module],
        key_reduction: int = 1,
    ):
        super().__init__()
        for name, value in (("heads", heads), ("groups", groups)):
            if value < 1 or channels % value:
                raise ValueError(f"{name}={value} must divide channels={channels}")
        self.heads = heads
        # Private: values derived from other options stay out of a model's fingerprint.
        self._head_size = channels // heads
        self.key_reduction = key_reduction
        self.norm = norm(channels)
        self.reduce = reduction_conv(conv, channels, key_reduction)
        self.reduce_norm = norm(channels) if key_reduction > 1 else nn.Identity()
        self.query = conv(channels, channels, 1, groups=groups)
        self.key = conv(channels, channels, 1, groups=groups)
        self.value = conv(channels, channels, 1, groups=groups)
        self.output = conv(channels, channels, 1, groups=groups, bias=False)
        self.output_norm = norm(channels)

    def _split(self, x: Tensor) -> Tensor:
        """(b, c, *positions) to (b, h, positions, c / h)."""
        return x.reshape(x.shape[0], self.heads, self._head_size, -1).transpose(2, 3)

    def _attend(self, x: Tensor, source: Tensor, keep: Tensor | None, with_map: bool):
        """Attend from every position of `x` to those of `source`; `keep` (b, k) marks valid keys."""
        query, key, value = (
            self._split(f(y)) for f, y in ((self.query, x), (self.key, source), (self.value, source))
        )
        mask = None if keep is None else keep[:, None, None, :]
        if with_map:
            # Scaled before the product, which could otherwise overflow half precision.
            scores = (query * self._head_size**-0.5) @ key.transpose(2, 3)
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            weights = scores.softmax(-1)
            attended = weights @ value
        else:
            weights = None
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output_norm(self.output(attended.transpose(2, 3).reshape(x.shape))), weights


class TemporalSelfAttention(GroupedSelfAttention):
    """Self-attention over time of a map without frequency (the modified form, TASLP 2024).

    Parameters
    ----------
    channels, heads, groups, key_reduction : int
        See `GroupedSelfAttention`; keys and values keep one of every `key_reduction` frames.

    Examples
    --------
    >>> attention = TemporalSelfAttention(8, heads=2, groups=2, key_reduction=2)
    >>> y, weights = attention(torch.rand(3, 8, 11), with_map=True)
    >>> y.shape, weights.shape
    (torch.Size([3, 8, 11]), torch.Size([3, 2, 11, 6]))
    """

    def __init__(self, channels: int, heads: int, groups: int, key_reduction: int = 1):
        super().__init__(channels, heads, groups, nn.Conv1d, nn.BatchNorm1d, key_reduction)

    def forward(self, x: Tensor, valid: Tensor | None = None, with_map: bool = False):
        """Attend over time.

        Parameters
        ----------
        x : Tensor
            (batch, channels, frames).
        valid : Tensor or None
            (batch,), valid frames of each utterance.
        with_map : bool
            Return the attention map as well.

        Returns
        -------
        tuple
            Output (batch, channels, frames); map (batch, heads, query frames, key frames) or None.
        """
        x = source = self.norm(x)
        keep = None
        if valid is not None:
            frames = x.shape[-1]
            keep = frame_mask(
                conv_output_length(valid, self.key_reduction), conv_output_length(frames, self.key_reduction)
            )
            if self.key_reduction > 1:  # the strided convolution looks across the end of the utterance
                source = x * frame_mask(valid, frames)[:, None]
        return self._attend(x, self.reduce_norm(self.reduce(source)), keep, with_map)


class FrequencyTimeSelfAttention(GroupedSelfAttention):
    """Self-attention over the frequency-time plane (the conventional form, Interspeech 2022).

    Parameters
    ----------
    channels, heads, groups, key_reduction : int
        See `GroupedSelfAttention`; keys and values shrink by `key_reduction` along both axes.

    Examples
    --------
    >>> attention = FrequencyTimeSelfAttention(8, heads=2, groups=4, key_reduction=2)
    >>> y, weights = attention(torch.rand(3, 8, 5, 11), with_map=True)
    >>> y.shape, weights.shape
    (torch.Size([3, 8, 5, 11]), torch.Size([3, 2, 55, 18]))
    """

    def __init__(self, channels: int, heads: int, groups: int, key_reduction: int = 1):
        super().__init__(channels, heads, groups, nn.Conv2d, nn.BatchNorm2d, key_reduction)

    def forward(self, x: Tensor, valid: Tensor | None = None, with_map: bool = False):
        """Attend over frequency and time.

        Parameters
        ----------
        x : Tensor
            (batch, channels, frequencies, frames).
        valid : Tensor or None
            (batch,), valid frames of each utterance.
        with_map : bool
            Return the attention map as well.

        Returns
        -------
        tuple
            Output (batch, channels, frequencies, frames); map (batch, heads, query positions, key positions) or
            None. Positions run over frames first: position = frequency index * frames + frame.
        """
        x = source = self.norm(x)
        if valid is not None and self.key_reduction > 1:
            source = x * frame_mask(valid, x.shape[-1])[:, None, None]
        source = self.reduce_norm(self.reduce(source))
        keep = None
        if valid is not None:
            keep = frame_mask(conv_output_length(valid, self.key_reduction), source.shape[-1])
            keep = keep[:, None].expand(-1, source.shape[2], -1).reshape(source.shape[0], -1)
        return self._attend(x, source, keep, with_map)
