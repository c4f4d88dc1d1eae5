"""BC-CMT: CNNs meet Transformers, with broadcasted residual learning, for speaker verification.

Axes: b batch, c channel, f frequency, t time (frames).

Sources: "BC-CMT" (Choi, Yang, Jeoung, Chang, Interspeech 2022; Choi, Yang, Chang, IEEE/ACM TASLP 32, 2024,
doi 10.1109/TASLP.2024.3463491), of which we know only the abstracts: the three sizes, the two forms of attention,
the pooling and 271.44 K parameters for the modified Tiny are theirs. Widths, depths, strides, groups and heads are
our reading, chosen by measurement (docs/skeleton.md). Building blocks: CMT (arXiv 2107.06263) and BC-ResNet
(arXiv 2106.04140).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import conv_output_length, frame_mask, valid_frames
from speechbrain_bccmt.lobes.blocks import Block, Downsample
from speechbrain_bccmt.lobes.pooling import FrequencyStatisticsPooling

ATTENTIONS = ("temporal", "frequency_time")


class BCCMT(nn.Module):
    """Encoder from log-mel frames to one embedding per utterance.

    Parameters
    ----------
    channels, depths, expansions : sequence of int
        For each of the four stages: width, number of blocks, and inner channels of the feed-forward part.
    attention : str
        "temporal" (modified form: over time only) or "frequency_time" (conventional form: over the plane).
    embedding_size : int
        Size of the embedding.
    n_mels : int
        Log-mel bands of the input; must stay divisible by `subbands` after all frequency strides.
    stem_channels : int
        Channels of the first convolution, which halves frequency and time.
    frequency_strides, time_strides, heads, key_reductions : sequence of int
        For each stage. The last three are the same in every size, so the attention maps of two sizes match.
    groups : int or None
        Groups of the attention's projections; None: 4 in the modified form, which has fewer groups in the papers, and
        8 in the conventional one.
    subbands : int
        Sub-bands of the sub-spectral norms.
    pooling_channels : int
        Width of the pooling's temporal attention.
    kernel_size : int
        Kernel of the temporal depth-wise convolutions, in frames.
    dropout : float
        Dropout on the blocks' broadcast branches in training.

    Raises
    ------
    ValueError
        For an unknown form of attention, or numbers that do not divide each other.

    Notes
    -----
    A single frame is enough. The embedding of an utterance does not depend on padding: `lengths` masks it wherever a
    kernel, a softmax or a mean would see it. Time and memory grow with the square of the length, so callers that embed
    recordings (interface, evaluation, exported graphs) cut anything above 30 s into chunks.

    Examples
    --------
    >>> import torch
    >>> model = bccmt_tiny().eval()
    >>> model(torch.rand(2, 120, 80), lengths=torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 192])
    >>> embedding, maps = model.forward_with_attention(torch.rand(1, 120, 80))
    >>> len(maps) == sum(model.depths)
    True
    """

    def __init__(
        self,
        channels: Sequence[int],
        depths: Sequence[int],
        expansions: Sequence[int],
        attention: str = "temporal",
        embedding_size: int = 192,
        n_mels: int = 80,
        stem_channels: int = 16,
        frequency_strides: Sequence[int] = (2, 2, 1, 2),
        time_strides: Sequence[int] = (1, 2, 1, 1),
        heads: Sequence[int] = (2, 2, 4, 4),
        key_reductions: Sequence[int] = (8, 4, 2, 1),
        groups: int | None = None,
        subbands: int = 5,
        pooling_channels: int = 64,
        kernel_size: int = 3,
        dropout: float = 0.0,
    ):
        # The arguments of this encoder, from which BCCMT(**model.config) rebuilds it.
        self.config = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention={attention!r} is unknown: choose one of {', '.join(ATTENTIONS)}")
        groups = groups or (4 if attention == "temporal" else 8)
        self.attention = attention
        self.n_mels = n_mels
        self.embedding_size = embedding_size
        self.depths = tuple(depths)
        self.time_strides = tuple(time_strides)
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem_channels),
            nn.ReLU(),
        )
        frequencies = conv_output_length(n_mels, 2)
        self.downsamples = nn.ModuleList()
        self.stages = nn.ModuleList()
        before = stem_channels
        for stage, width in enumerate(channels):
            self.downsamples.append(
                Downsample(before, width, (frequency_strides[stage], time_strides[stage]))
            )
            before = width
            frequencies = conv_output_length(frequencies, frequency_strides[stage])
            if frequencies % subbands:
                raise ValueError(
                    f"n_mels={n_mels} leaves {frequencies} frequencies in stage {stage + 1}, "
                    f"which subbands={subbands} does not divide"
                )
            self.stages.append(
                nn.ModuleList(
                    Block(
                        width,
                        expansions[stage],
                        heads[stage],
                        groups,
                        key_reductions[stage],
                        subbands,
                        attention,
                        kernel_size,
                        dropout,
                    )
                    for _ in range(depths[stage])
                )
            )
        self._map_size = (before, frequencies)
        self.pooling = FrequencyStatisticsPooling(before, frequencies, pooling_channels)
        self.pooling_norm = nn.BatchNorm1d(self.pooling.output_size)
        self.embedding = nn.Linear(self.pooling.output_size, embedding_size)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed utterances.

        Parameters
        ----------
        x : Tensor
            (batch, frames, mels), log-mel features.
        lengths : Tensor or None
            (batch,), relative to the longest utterance, in (0, 1].

        Returns
        -------
        Tensor
            (batch, 1, embedding size).

        Raises
        ------
        ValueError
            If the input is not (batch, frames, mels) with at least one frame.
        """
        return self._encode(x, lengths, with_map=False)[0]

    def forward_with_attention(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Embed utterances and return the attention maps too.

        Parameters
        ----------
        x, lengths : Tensor
            As in `forward`.

        Returns
        -------
        tuple
            Embedding (batch, 1, embedding size), and a list with one map per block, in order: (batch, heads, query
            frames, key frames), with positions of the plane instead of frames in the conventional form. Each row sums
            to one over the valid keys.
        """
        return self._encode(x, lengths, with_map=True)

    @property
    def map_size(self) -> tuple[int, int]:
        """Channels and frequencies of the last feature map."""
        return self._map_size

    @property
    def time_stride(self) -> int:
        """Input frames per frame of the last feature map."""
        return 2 * math.prod(self.time_strides)

    def feature_map(
        self, x: Tensor, lengths: Tensor | None = None, with_map: bool = False
    ) -> tuple[Tensor, Tensor | None, list]:
        """Return the last feature map, which the pooling summarises.

        Parameters
        ----------
        x, lengths : Tensor
            As in `forward`.
        with_map : bool
            Return the attention maps as well.

        Returns
        -------
        tuple
            The map (batch, channels, frequencies, frames), with `map_size` for channels and frequencies and one
            frame for every `time_stride` of the input; its valid frames (batch,), or None without lengths; one
            attention map or None per block.
        """
        if x.ndim != 3 or x.shape[1] < 1 or x.shape[2] != self.n_mels:
            raise ValueError(
                f"expected features (batch, frames >= 1, {self.n_mels} mels), got {tuple(x.shape)}"
            )
        valid = None if lengths is None else valid_frames(lengths, x.shape[1])
        x = x.transpose(1, 2).unsqueeze(1)
        maps = []
        x = self.stem(x if valid is None else x * frame_mask(valid, x.shape[-1])[:, None, None])
        valid = None if valid is None else conv_output_length(valid, 2)
        for downsample, blocks, stride in zip(self.downsamples, self.stages, self.time_strides, strict=True):
            mask = None
            if valid is not None:  # the strided kernel looks one frame beyond the end of the utterance
                x = x * frame_mask(valid, x.shape[-1])[:, None, None]
                valid = conv_output_length(valid, stride)
            x = downsample(x)
            if valid is not None:
                mask = frame_mask(valid, x.shape[-1])[:, None].to(x.dtype)
            for block in blocks:
                x, weights = block(x, valid, mask, with_map)
                maps.append(weights)
        return x, valid, maps

    def embed_map(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Embed utterances from their last feature maps.

        Parameters
        ----------
        x, valid : Tensor
            The map and its valid frames, as `feature_map` returns them.

        Returns
        -------
        Tensor
            (batch, 1, embedding size).
        """
        return self.embedding(self.pooling_norm(self.pooling(x, valid))).unsqueeze(1)

    def without_head(self) -> BCCMT:
        """Remove the pooling and the embedding layer, which the feature map does not need, and return the encoder."""
        self.pooling = self.pooling_norm = self.embedding = None
        return self

    def _encode(self, x: Tensor, lengths: Tensor | None, with_map: bool):
        if self.pooling is None:
            raise ValueError("this BCCMT has lost its pooling to a TokenEmbedder: it gives feature maps only")
        x, valid, maps = self.feature_map(x, lengths, with_map)
        return self.embed_map(x, valid), maps


def bccmt_tiny(attention: str = "temporal", **options) -> BCCMT:
    """BC-CMT Tiny, 271.44 K parameters in the modified form; `options` go to `BCCMT`."""
    sizes = dict(channels=(16, 32, 48, 80), depths=(1, 1, 2, 2), expansions=(40, 80, 96, 160))
    return BCCMT(attention=attention, **{"pooling_channels": 68, **sizes, **options})


def bccmt_small(attention: str = "temporal", **options) -> BCCMT:
    """BC-CMT Small, near 1 M parameters; `options` go to `BCCMT`."""
    sizes = dict(channels=(32, 64, 96, 160), depths=(1, 1, 2, 2), expansions=(64, 128, 192, 320))
    return BCCMT(attention=attention, **{"stem_channels": 32, **sizes, **options})


def bccmt_base(attention: str = "temporal", **options) -> BCCMT:
    """BC-CMT Base, 3 to 5 M parameters, the teacher; `options` go to `BCCMT`."""
    sizes = dict(channels=(48, 96, 160, 256), depths=(1, 2, 3, 3), expansions=(144, 288, 480, 768))
    return BCCMT(attention=attention, **{"stem_channels": 48, **sizes, **options})


def bccmt(size: str = "tiny", attention: str = "temporal", **options) -> BCCMT:
    """BC-CMT of a named size; `options` go to `BCCMT`.

    Parameters
    ----------
    size : str
        "tiny", "small" or "base".
    attention : str
        "temporal": the modified form; "frequency_time": the conventional form.

    Raises
    ------
    ValueError
        If there is no such size or form.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in bccmt("tiny").parameters())
    271436
    """
    builders = {"tiny": bccmt_tiny, "small": bccmt_small, "base": bccmt_base}
    if size not in builders:
        raise ValueError(f"size is '{size}', expected one of {', '.join(builders)}")
    return builders[size](attention, **options)
