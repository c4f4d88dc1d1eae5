"""The encoder's blocks with fewer operators, for exported graphs.

At inference all that a block does along frequency is one linear map for each channel: two depth-wise convolutions,
two sub-spectral norms, three means and the broadcasts between them. Here two grouped products stand for these thirty
operators, each of which costs a runtime more than its arithmetic.

Axes: b batch, c channel, f frequency, t time (frames).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import conv_output_length
from speechbrain_bccmt.lobes.bccmt import BCCMT
from speechbrain_bccmt.lobes.blocks import Block
from speechbrain_bccmt.lobes.broadcast import broadcast, frequency_mean
from speechbrain_bccmt.lobes.pooling import FrequencyStatisticsPooling


class FoldedBlock(nn.Module):
    """A trained `Block` with attention over time, its frequency work as two grouped products.

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
        self.local_time, self.attention, self.feed_time = block.local_time, block.attention, block.feed_time
        channels = self.local_time.pointwise.out_channels
        self.channels, self.frequencies = channels, frequencies
        with torch.no_grad():
            means, plane = _frequency_responses(block, channels, frequencies)
        bias, of_broadcast = means[..., -1], means[..., -2, None]
        # Only the third mean is of a map to which something has been broadcast.
        self.register_buffer("feed_gain", of_broadcast[:, 2], persistent=False)
        self.means = _grouped_product(means[..., :-2], bias)
        # What the feed-forward part broadcasts reaches every frequency as it is.
        ones = torch.ones(channels, frequencies, 1)
        self.plane = _grouped_product(torch.cat([plane[..., :-1], ones], dim=2), plane[..., -1])

    def forward(
        self, x: Tensor, valid: Tensor | None = None, mask: Tensor | None = None, with_map: bool = False
    ):
        """Map (batch, channels, frequencies, frames) to the same shape, and the attention map or None."""
        c, f = self.channels, self.frequencies
        means = self.means(x.reshape(x.shape[0], c * f, -1))
        of_local, of_map, of_feed = means.reshape(means.shape[0], c, 3, -1).unbind(2)
        local = self.local_time(of_local, mask)
        # With its map, as the fused attention kernel exports as more operators than the plain one.
        attended, weights = self.attention(of_map + local, valid, with_map=True)
        local = local + attended
        fed = self.feed_time(of_feed + self.feed_gain * local, mask)
        rows = torch.cat([x, local.unsqueeze(2), fed.unsqueeze(2)], dim=2)
        y = self.plane(rows.reshape(rows.shape[0], c * (f + 2), -1)).relu()
        return y.reshape(y.shape[0], c, f, -1), weights if with_map else None


def _frequency_responses(block: Block, channels: int, frequencies: int) -> tuple[Tensor, Tensor]:
    """Return how a block's frequency work responds to its inputs, one at a time, as in `Block.forward`.

    Inputs are each frequency of the map, and what local perception and attention broadcast; the last column is the
    response to none. Gives the three means, (c, 3, inputs + 1), and the output before the feed-forward part's
    broadcast and the activation, (c, f, inputs + 1).
    """
    inputs = frequencies + 1
    # No frame sees another here: each stands for one input.
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
    """Make the layer that maps (b, c * inputs, t) to (b, c * outputs, t) by `weight` (c, outputs, inputs)."""
    channels, outputs, inputs = weight.shape
    layer = nn.Conv1d(channels * inputs, channels * outputs, 1, groups=channels)
    layer.weight = nn.Parameter(weight.reshape(-1, inputs, 1), requires_grad=False)
    layer.bias = nn.Parameter(bias.reshape(-1), requires_grad=False)
    return layer


class ExportPooling(FrequencyStatisticsPooling):
    """A trained pooling whose softmax over frequency is written out.

    For a softmax over an inner axis, runtimes transpose the whole map twice.
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
        The copy; its outputs are the model's, but for rounding.

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
