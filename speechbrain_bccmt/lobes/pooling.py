"""Frequency-statistics-dependent attentive statistics pooling.

Axes: b batch, c channel, f frequency, t time (frames).

Source: the abstract of BC-CMT (Choi et al., Interspeech 2022): attentive temporal statistics of the means and
standard deviations of the feature map, weighted along frequency by an attention mechanism. The form of both
attentions is our reading; the temporal one follows attentive statistics pooling (arXiv 1803.10963).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import frame_mask

# Smallest variance: above the least positive number of half precision, so that its root has a finite gradient there.
VARIANCE_FLOOR = 1e-5


def weighted_statistics(x: Tensor, weights: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of `x` along `dim`, under weights that sum to one along it.

    Examples
    --------
    >>> mean, std = weighted_statistics(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]), dim=1)
    >>> mean.item(), round(std.item(), 4)
    (2.0, 1.0)
    """
    mean = (weights * x).sum(dim, keepdim=True)
    variance = (weights * (x - mean).square()).sum(dim)
    return mean.squeeze(dim), variance.clamp(min=VARIANCE_FLOOR).sqrt()


class FrequencyStatisticsPooling(nn.Module):
    """Feature map to one vector: statistics over frequency, then attentive statistics over time.

    Parameters
    ----------
    channels : int
        Channels c of the feature map.
    frequencies : int
        Frequencies f of the feature map.
    attention_channels : int
        Width of the temporal attention's hidden layer.

    Notes
    -----
    Weights along frequency are per channel: a learned score for each channel and frequency, shifted by the content
    through one scale per channel, so each channel can attend to its own band.

    Examples
    --------
    >>> FrequencyStatisticsPooling(8, frequencies=5)(torch.rand(2, 8, 5, 30)).shape
    torch.Size([2, 32])
    """

    def __init__(self, channels: int, frequencies: int, attention_channels: int = 64):
        super().__init__()
        self.output_size = 4 * channels
        self.frequency_score = nn.Parameter(torch.zeros(channels, frequencies, 1))
        self.frequency_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.hidden = nn.Conv1d(2 * channels, attention_channels, 1)
        self.score = nn.Conv1d(attention_channels, 2 * channels, 1)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Pool a feature map.

        Parameters
        ----------
        x : Tensor
            (batch, channels, frequencies, frames).
        valid : Tensor or None
            (batch,), valid frames of each utterance.

        Returns
        -------
        Tensor
            (batch, 4 * channels): temporal means, then temporal standard deviations, of the means and standard
            deviations over frequency.
        """
        kind = x.dtype
        # In single precision, as squares of activations overflow half precision.
        x = x.float()
        over_frequency = self.frequency_softmax(
            self.frequency_score.float() + self.frequency_scale.float() * x
        )
        h = torch.cat(weighted_statistics(x, over_frequency, dim=2), dim=1)
        score = self.score(torch.tanh(self.hidden(h.to(kind)))).float()
        if valid is not None:
            score = score.masked_fill(~frame_mask(valid, x.shape[-1])[:, None], float("-inf"))
        return torch.cat(weighted_statistics(h, score.softmax(2), dim=2), dim=1).to(kind)

    @staticmethod
    def frequency_softmax(scores: Tensor) -> Tensor:
        """Softmax of (batch, channels, frequencies, frames) over frequency."""
        return scores.softmax(2)
