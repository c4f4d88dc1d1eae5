"""The encoder's blocks with fewer operators, for exported graphs.

At inference everything a block does along frequency is one linear map per channel: two depth-wise convolutions, two
sub-spectral norms, three means and the broadcasts between them. Here two grouped products replace these thirty
operators, each of which costs a runtime more than its arithmetic. In the parts along time alone, norms and shortcuts
are folded into the neighbouring convolutions; they keep a frequency axis of length one, which also saves operators.

Axes: b batch, c channel, f frequency, t time (frames).
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechbrain_bccmt.export.operators import reshape
from speechbrain_bccmt.lobes.attention import TemporalSelfAttention, conv_output_length, frame_mask
from speechbrain_bccmt.lobes.bccmt import BCCMT
from speechbrain_bccmt.lobes.blocks import Block
from speechbrain_bccmt.lobes.broadcast import InvertedResidualUnit, TemporalUnit, broadcast, frequency_mean
from speechbrain_bccmt.lobes.pooling import FrequencyStatisticsPooling


class FoldedBlock(nn.Module):
    """A trained `Block` with attention over time, its frequency part as two grouped products.

    Parameters
    ----------
    block : Block
        The block, in evaluation mode.
    frequencies : int
        Frequencies of its input.

    Raises
    ------
    ValueError
        If the block attends over frequency as well, which leaves nothing to fold.

    Examples
    --------
    >>> block = Block(8, hidden=16, heads=2, groups=2, key_reduction=2, subbands=5).eval()
    >>> x = torch.rand(3, 8, 10, 12)
    >>> torch.allclose(FoldedBlock(block, frequencies=10)(x)[0], block(x)[0], atol=1e-5)
    True
    """

    def __init__(self, block: Block, frequencies: int):
        super().__init__()
        if not block.temporal:
            raise ValueError("a block with attention over frequency and time cannot be folded")
        self.local_time, self.attention = FoldedLocal(block.local_time), FoldedAttention(block.attention)
        self.feed_time = FoldedFeedForward(block.feed_time)
        channels = block.local_time.pointwise.out_channels
        self.channels, self.frequencies = channels, frequencies
        with torch.no_grad():
            means, plane = _frequency_responses(block, channels, frequencies)
            bias, of_broadcast = means[..., -1].clone(), means[..., -2, None, None]
            bias[:, 1] += self.attention.offset
        # Only the third mean is of a map that something has been broadcast to.
        self.register_buffer("feed_gain", of_broadcast[:, 2], persistent=False)
        self.means = _grouped_product(means[..., :-2], bias)
        # The feed-forward part's broadcast reaches every frequency unchanged.
        ones = torch.ones(channels, frequencies, 1)
        self.plane = _grouped_product(torch.cat([plane[..., :-1], ones], dim=2), plane[..., -1])

    def forward(
        self, x: Tensor, valid: Tensor | None = None, mask: Tensor | None = None, with_map: bool = False
    ):
        """Map (batch, channels, frequencies, frames) to the same shape; also return the attention map or None."""
        c, f = self.channels, self.frequencies
        means = reshape(self.means(reshape(x, 0, c * f, -1)), 0, c, 3, -1)
        of_local, of_map, of_feed = means.split(1, dim=2)
        mask = None if mask is None else mask.unsqueeze(1)
        local = self.local_time(of_local, mask)
        attended, weights = self.attention(of_map + local, valid)
        local = local + attended
        fed = self.feed_time(of_feed + self.feed_gain * local, mask)
        rows = torch.cat([x, local, fed], dim=2)
        y = self.plane(reshape(rows, 0, c * (f + 2), -1)).relu()
        return reshape(y, 0, c, f, -1), weights if with_map else None


class FoldedAttention(nn.Module):
    """A trained `TemporalSelfAttention` without its norms, with keys and values from one convolution.

    Parameters
    ----------
    attention : TemporalSelfAttention
        The attention, in evaluation mode.

    Attributes
    ----------
    offset : Tensor
        (channels,), to be added to the input beforehand, in place of the first norm.
    """

    def __init__(self, attention: TemporalSelfAttention):
        super().__init__()
        heads, self.reduction = attention.heads, attention.key_reduction
        channels, self.head_size = attention.norm.num_features, attention._head_size
        self.heads = heads
        with torch.no_grad():
            gain, self.offset = _gain_and_offset(attention.norm)
            # Groups of whole heads, to keep the keys and values of a head together.
            groups = math.gcd(attention.query.groups, heads)
            query = _dense(attention.query)
            scale = self.head_size**-0.5
            query = _diagonal_blocks((query * gain * scale)[..., None], groups)
            self.query = _convolution(query, attention.query.bias * scale, groups)
            kernel, shift = gain[:, None], torch.zeros(channels)
            if self.reduction > 1:
                norm_gain, norm_offset = _gain_and_offset(attention.reduce_norm)
                kernel = attention.reduce.weight[:, 0] * (gain * norm_gain)[:, None]
                shift = norm_gain * norm_offset
            # (2, groups, channels of a group, channels, taps) to keys and values of each group in turn.
            both = torch.stack([_dense(attention.key), _dense(attention.value)])
            bias = both @ shift + torch.stack([attention.key.bias, attention.value.bias])
            both = (both[..., None] * kernel).unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
            bias = bias.unflatten(1, (groups, -1)).transpose(0, 1).flatten()
            self.groups = groups
            self.keys_and_values = _convolution(_diagonal_blocks(both, groups), bias, groups, self.reduction)
            gain, offset = _gain_and_offset(attention.output_norm)
            weight = attention.output.weight * gain[:, None, None]
            self.output = _convolution(weight, gain * offset, attention.output.groups)

    def forward(self, x: Tensor, valid: Tensor | None = None):
        """Map (batch, channels, 1, frames) to the same shape; also return the attention map."""
        source, keep = x, None
        if valid is not None:
            frames = x.shape[-1]
            keep = frame_mask(conv_output_length(valid, self.reduction), conv_output_length(frames, self.reduction))
            source = x * frame_mask(valid, frames)[:, None, None]
        query = reshape(self.query(x), 0, self.heads, self.head_size, -1)
        both = self.keys_and_values(source)
        both = reshape(both, 0, self.groups, 2, self.heads // self.groups * self.head_size, -1)
        key, value = (reshape(part, 0, self.heads, self.head_size, -1) for part in both.unbind(2))
        scores = query.transpose(2, 3) @ key
        if keep is not None:
            scores = scores.masked_fill(~keep[:, None, None], float("-inf"))
        weights = scores.softmax(-1)
        attended = reshape(value @ weights.transpose(2, 3), 0, self.heads * self.head_size, 1, -1)
        return self.output(attended), weights


class FoldedLocal(nn.Module):
    """A trained `TemporalUnit` with its norm folded into its convolution."""

    def __init__(self, unit: TemporalUnit):
        super().__init__()
        with torch.no_grad():
            gain, offset = _gain_and_offset(unit.norm)
            weight = unit.depthwise.weight * gain[:, None, None]
            self.depthwise = _convolution(weight, gain * offset, len(weight))
            self.pointwise = _convolution(unit.pointwise.weight, torch.zeros(len(weight)), 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (batch, channels, 1, frames) to the same shape."""
        return self.pointwise(F.silu(self.depthwise(x if mask is None else x * mask)))


class FoldedFeedForward(nn.Module):
    """A trained `InvertedResidualUnit` with its norms and shortcut folded into its convolutions."""

    def __init__(self, unit: InvertedResidualUnit):
        super().__init__()
        with torch.no_grad():
            self.expand = _convolution(unit.expand.weight, torch.zeros(unit.expand.out_channels), 1)
            gain, offset = _gain_and_offset(unit.expand_norm)
            self.register_buffer("offset", offset[:, None, None], persistent=False)
            kernel = unit.depthwise.weight.clone()
            kernel[:, 0, kernel.shape[2] // 2] += 1
            channels = len(kernel)
            self.depthwise = _convolution(kernel * gain[:, None, None], torch.zeros(channels), channels)
            gain, offset = _gain_and_offset(unit.depthwise_norm)
            project = unit.project.weight * gain[:, None]
            bias = project[..., 0] @ offset
            gain, offset = _gain_and_offset(unit.project_norm)
            self.project = _convolution(project * gain[:, None, None], gain * (bias + offset), 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (batch, channels, 1, frames) to the same shape."""
        x = F.gelu(self.expand(x)) + self.offset
        if mask is not None:
            x = x * mask
        return self.project(F.gelu(self.depthwise(x)))


def _gain_and_offset(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return a trained batch norm as x -> gain (x + offset)."""
    gain = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    # A norm with a gain of zero still outputs its bias.
    gain = torch.where(gain.abs() < 1e-12, 1e-12, gain)
    return gain, norm.bias.detach() / gain - norm.running_mean


def _dense(conv: nn.Conv1d) -> Tensor:
    """Return the weights of a grouped point-wise convolution as one matrix (outputs, inputs)."""
    return torch.block_diag(*conv.weight[..., 0].chunk(conv.groups))


def _convolution(weight: Tensor, bias: Tensor, groups: int, stride: int = 1) -> nn.Conv2d:
    """Build a centred convolution over the last axis from `weight` (outputs, inputs of a group, taps)."""
    outputs, inputs, taps = weight.shape
    layer = nn.Conv2d(inputs * groups, outputs, (1, taps), (1, stride), (0, taps // 2), groups=groups)
    layer.weight = nn.Parameter(weight[:, :, None], requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _diagonal_blocks(weight: Tensor, groups: int) -> Tensor:
    """Extract a grouped convolution's weights, (outputs, inputs of a group, taps), from (outputs, inputs, taps)."""
    blocks = weight.unflatten(1, (groups, -1)).unflatten(0, (groups, -1))
    return torch.cat([blocks[group, :, group] for group in range(groups)])


def _frequency_responses(block: Block, channels: int, frequencies: int) -> tuple[Tensor, Tensor]:
    """Return how a block's frequency part responds to its inputs, one at a time, as in `Block.forward`.

    Inputs are each frequency of the map, and the broadcast of local perception and attention; the last column is the
    response to no input. Returns the three means, (c, 3, inputs + 1), and the output before the feed-forward part's
    broadcast and the activation, (c, f, inputs + 1).
    """
    inputs = frequencies + 1
    # Frames are independent here: each one is one input.
    x = torch.zeros(1, channels, frequencies, inputs + 1)
    x[..., :frequencies] = torch.eye(frequencies)
    added = torch.zeros(1, channels, inputs + 1)
    added[..., frequencies] = 1
    y = block.local_frequency(x)
    x = x + y
    means = [frequency_mean(y), frequency_mean(x)]
    x = broadcast(x, added)
    y = block.feed_frequency(x)
    means.append(frequency_mean(y))
    responses = torch.stack(means, dim=2)[0], (x + y)[0]
    return tuple(torch.cat([r[..., :-1] - r[..., -1:], r[..., -1:]], dim=2) for r in responses)


def _grouped_product(weight: Tensor, bias: Tensor) -> nn.Conv1d:
    """Build the layer that maps (b, c * inputs, t) to (b, c * outputs, t) by `weight` (c, outputs, inputs)."""
    channels, outputs, inputs = weight.shape
    layer = nn.Conv1d(channels * inputs, channels * outputs, 1, groups=channels)
    layer.weight = nn.Parameter(weight.reshape(-1, inputs, 1), requires_grad=False)
    layer.bias = nn.Parameter(bias.reshape(-1), requires_grad=False)
    return layer


class ExportPooling(FrequencyStatisticsPooling):
    """A trained pooling with its softmax over frequency written out.

    Runtimes transpose the whole map twice for a softmax over an inner axis.
    """

    def __init__(self, pooling: FrequencyStatisticsPooling):
        super().__init__(*pooling.frequency_score.shape[:2], pooling.hidden.out_channels)
        self.load_state_dict(pooling.state_dict())

    @staticmethod
    def frequency_softmax(scores: Tensor) -> Tensor:
        """Softmax of (batch, channels, frequencies, frames) over frequency."""
        powers = (scores - scores.amax(2, keepdim=True)).exp()
        return powers / powers.sum(2, keepdim=True)


def fold_blocks(model: nn.Module) -> nn.Module:
    """Return a copy of a trained model in which each `BCCMT` is folded as far as it can be.

    Parameters
    ----------
    model : torch.nn.Module
        The model, on the CPU and in evaluation mode.

    Returns
    -------
    torch.nn.Module
        The copy; its outputs are the model's, except for rounding.

    Examples
    --------
    >>> from speechbrain_bccmt import bccmt_tiny
    >>> model, x = bccmt_tiny().eval(), torch.rand(2, 120, 80)
    >>> torch.allclose(fold_blocks(model)(x), model(x), atol=1e-5)
    True
    """
    model = copy.deepcopy(model)
    for encoder in list(model.modules()):
        if not isinstance(encoder, BCCMT):
            continue
        if encoder.pooling is not None:  # as it is in the front end of a TokenEmbedder
            encoder.pooling = ExportPooling(encoder.pooling)
        if encoder.attention != "temporal":
            continue
        frequencies = conv_output_length(encoder.n_mels, 2)
        for blocks, stride in zip(encoder.stages, encoder.config["frequency_strides"], strict=True):
            frequencies = conv_output_length(frequencies, stride)
            for index, block in enumerate(blocks):
                blocks[index] = FoldedBlock(block, frequencies)
    return model
