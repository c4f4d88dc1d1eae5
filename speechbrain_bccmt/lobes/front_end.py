"""From log-mel frames to the sequence that the tokens attend to: convolutions and positional information.

Axes: b batch, c channel, t time (frames).

Source: the system of Mingote et al. for SdSV 2020 (DeepMine Part 1): Conv1d 128, a residual block x3 at 160, a residual
block x3 at 256, BatchNorm; a phonetic bottleneck is concatenated before each of the two residual blocks. The content of
a residual block, the kernels, the time stride and the small default are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechbrain_bccmt.lobes.attention import conv_output_length, frame_mask, valid_frames

POSITIONS = ("none", "sinusoidal", "phonetic")


class ResidualUnit(nn.Module):
    """Two temporal convolutions, each normalised, with a shortcut around them.

    Parameters
    ----------
    channels_in, channels : int
        Channels before and after; where they differ, the shortcut is a 1x1 convolution.
    kernel_size : int
        Odd kernel of both convolutions, in frames.

    Examples
    --------
    >>> ResidualUnit(4, 6)(torch.rand(2, 4, 9)).shape
    torch.Size([2, 6, 9])
    """

    def __init__(self, channels_in: int, channels: int, kernel_size: int = 3):
        super().__init__()
        half = kernel_size // 2
        self.first = nn.Conv1d(channels_in, channels, kernel_size, padding=half, bias=False)
        self.first_norm = nn.BatchNorm1d(channels)
        self.second = nn.Conv1d(channels, channels, kernel_size, padding=half, bias=False)
        self.second_norm = nn.BatchNorm1d(channels)
        same = channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Conv1d(channels_in, channels, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (batch, channels, frames); `mask` (batch, 1, frames) zeroes the padding that the kernels would see."""
        y = torch.relu(self.first_norm(self.first(_masked(x, mask))))
        return torch.relu(self.shortcut(x) + self.second_norm(self.second(_masked(y, mask))))


class ConvolutionalFrontEnd(nn.Module):
    """One convolution, then stages of residual units over time.

    Parameters
    ----------
    n_mels : int
        Log-mel bands of the input.
    channels : sequence of int
        Channels of the first convolution, then of each stage.
    units : int
        Residual units per stage.
    kernel_size : int
        Odd kernel of all convolutions, in frames; 1 makes the front end pointwise.
    time_stride : int
        Stride of the first convolution: frames per output vector.
    phonetic_size : int
        Size of the phonetic bottleneck concatenated before each stage; 0: none.

    Raises
    ------
    ValueError
        If the kernel is even, or a number is too small.

    Notes
    -----
    The full-size model of 2020 is `channels=(128, 160, 256), units=3, time_stride=1`.

    Examples
    --------
    >>> front_end = ConvolutionalFrontEnd(channels=(16, 24), units=1)
    >>> x, valid, maps = front_end.feature_map(torch.rand(2, 101, 80), torch.tensor([1.0, 0.5]))
    >>> x.shape, valid.tolist(), maps
    (torch.Size([2, 24, 1, 51]), [51, 25], [])
    """

    depths = ()  # no attention maps

    def __init__(
        self,
        n_mels: int = 80,
        channels: Sequence[int] = (48, 64, 80),
        units: int = 1,
        kernel_size: int = 3,
        time_stride: int = 2,
        phonetic_size: int = 0,
    ):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} of the front end must be odd")
        if time_stride < 1 or units < 1 or len(channels) < 1:
            raise ValueError(
                f"the front end needs time_stride and units of at least 1 and channels of its first convolution, "
                f"got time_stride={time_stride}, units={units} and channels={tuple(channels)}"
            )
        self.n_mels, self.time_stride = n_mels, time_stride
        self.map_size = (channels[-1], 1)
        self.stem = nn.Sequential(
            nn.Conv1d(n_mels, channels[0], kernel_size, time_stride, kernel_size // 2, bias=False),
            nn.BatchNorm1d(channels[0]),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList()
        for before, width in zip(channels[:-1], channels[1:], strict=True):
            sizes = [before + phonetic_size] + [width] * units
            self.stages.append(
                nn.ModuleList(ResidualUnit(size, width, kernel_size) for size in sizes[:units])
            )

    def feature_map(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        with_map: bool = False,
        phonetic: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, list]:
        """Return the sequence, in the form of `BCCMT.feature_map`.

        Parameters
        ----------
        x : Tensor
            (batch, frames, mels).
        lengths : Tensor or None
            (batch,), relative in (0, 1].
        with_map : bool
            Ignored: there is no attention here.
        phonetic : Tensor or None
            (batch, frames of the sequence, phonetic size).

        Returns
        -------
        tuple
            (batch, channels, 1, frames of the sequence); its valid frames (batch,) or None; no maps.
        """
        valid = None if lengths is None else valid_frames(lengths, x.shape[1])
        x = _masked(x.transpose(1, 2), _mask(valid, x.shape[1]))
        valid = None if valid is None else conv_output_length(valid, self.time_stride)
        x = self.stem(x)
        mask = _mask(valid, x.shape[2])
        for stage in self.stages:
            if phonetic is not None:
                x = torch.cat([x, phonetic.transpose(1, 2).to(x.dtype)], dim=1)
            for unit in stage:
                x = unit(x, mask)
        return x.unsqueeze(2), valid, []


def sinusoidal_positions(frames: int, channels: int, like: Tensor) -> Tensor:
    """Sinusoidal positions of the frames (arXiv 1706.03762, section 3.5).

    Computed on the fly; SpeechBrain's `PositionalEncoding` keeps a table, which limits the length.

    Parameters
    ----------
    frames, channels : int
        Shape of the result; `channels` is even.
    like : Tensor
        Tensor of the wanted device and type.

    Returns
    -------
    Tensor
        (frames, channels): sines in the first half, cosines in the second.

    Examples
    --------
    >>> positions = sinusoidal_positions(3, 4, torch.empty(0))
    >>> positions[0].tolist(), round(positions[2, 0].item(), 4) == round(math.sin(2), 4)
    ([0.0, 0.0, 1.0, 1.0], True)
    """
    half = channels // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-math.log(10000.0) / half))
    angles = torch.arange(frames, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


class FrameSequence(nn.Module):
    """A front end, a batch norm, the projection to the width of the token blocks, and positional information.

    Parameters
    ----------
    front_end : ConvolutionalFrontEnd or BCCMT
        Computes a feature map; the frequencies of a BC-CMT map become channels.
    channels : int
        Width of the sequence.
    positions : str
        "none", "sinusoidal" (added), or "phonetic": concatenated inside the convolutional front end, which has to be
        built for it, or to the feature map of a BC-CMT.
    phonetic_size : int
        Size of the phonetic input; 0: none.

    Raises
    ------
    ValueError
        For unknown positions, or numbers that do not fit together.

    Examples
    --------
    >>> sequence = FrameSequence(ConvolutionalFrontEnd(), channels=32, positions="sinusoidal")
    >>> frames, keep, maps = sequence(torch.rand(2, 100, 80), torch.tensor([1.0, 0.5]))
    >>> frames.shape, keep.sum(1).tolist()
    (torch.Size([2, 50, 32]), [50, 25])
    """

    def __init__(self, front_end: nn.Module, channels: int, positions: str = "none", phonetic_size: int = 0):
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"positions={positions!r} is unknown: choose one of {', '.join(POSITIONS)}")
        if (positions == "phonetic") != (phonetic_size > 0):
            raise ValueError(
                f"positions={positions!r} and phonetic_size={phonetic_size} do not go together: 'phonetic' needs "
                "the size of the second input, the others have none"
            )
        if channels < 2 or channels % 2:
            raise ValueError(f"channels={channels} must be even")
        self.front_end, self.positions, self.phonetic_size = front_end, positions, phonetic_size
        self.convolutional = isinstance(front_end, ConvolutionalFrontEnd)
        width, frequencies = front_end.map_size
        self.norm = nn.BatchNorm1d(width * frequencies)
        joined_here = 0 if self.convolutional else phonetic_size
        self.project = nn.Linear(width * frequencies + joined_here, channels)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        phonetic: Tensor | None = None,
        with_map: bool = False,
    ) -> tuple[Tensor, Tensor | None, list]:
        """Return the sequence.

        Parameters
        ----------
        x : Tensor
            (batch, frames, mels).
        lengths : Tensor or None
            (batch,), relative in (0, 1].
        phonetic : Tensor or None
            (batch, frames, phonetic size).
        with_map : bool
            Return the attention maps of a BC-CMT as well.

        Returns
        -------
        tuple
            (batch, frames of the sequence, channels); (batch, frames of the sequence), True where valid, or None
            without lengths; the front end's attention maps, or None for each.

        Raises
        ------
        ValueError
            If an input is missing, has the wrong shape, or has no frames.
        """
        self.check(x, phonetic)
        if phonetic is not None:
            # The frames on which the strided kernels are centred.
            phonetic = phonetic[:, :: self.front_end.time_stride]
        inside = {"phonetic": phonetic} if self.convolutional else {}
        x, valid, maps = self.front_end.feature_map(x, lengths, with_map, **inside)
        return *self.from_map(x, valid, phonetic), maps

    def from_map(
        self, x: Tensor, valid: Tensor | None = None, phonetic: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the sequence for a feature map.

        Parameters
        ----------
        x, valid : Tensor
            The map and its valid frames, as the front end's `feature_map` returns them.
        phonetic : Tensor or None
            (batch, frames of the sequence, phonetic size).

        Returns
        -------
        tuple
            (batch, frames of the sequence, channels); which of them are valid, or None.
        """
        x = self.norm(x.flatten(1, 2)).transpose(1, 2)
        if phonetic is not None and not self.convolutional:
            x = torch.cat([x, phonetic.to(x.dtype)], dim=-1)
        x = self.project(x)
        if self.positions == "sinusoidal":
            x = x + sinusoidal_positions(x.shape[1], x.shape[2], like=x)
        return x, None if valid is None else frame_mask(valid, x.shape[1])

    def check(self, x: Tensor, phonetic: Tensor | None) -> None:
        """Raise a ValueError if an input is missing or has the wrong shape."""
        n_mels = self.front_end.n_mels
        if x.ndim != 3 or x.shape[1] < 1 or x.shape[2] != n_mels:
            raise ValueError(f"expected features (batch, frames >= 1, {n_mels} mels), got {tuple(x.shape)}")
        if (phonetic is None) != (self.positions != "phonetic"):
            given = "none" if phonetic is None else tuple(phonetic.shape)
            raise ValueError(
                f"positions={self.positions!r} and a phonetic input ({given}) do not go together"
            )
        if phonetic is not None and phonetic.shape != (*x.shape[:2], self.phonetic_size):
            raise ValueError(
                f"expected a phonetic input {(*x.shape[:2], self.phonetic_size)}, got {tuple(phonetic.shape)}"
            )


def _mask(valid: Tensor | None, frames: int) -> Tensor | None:
    """Mark valid frames as (batch, 1, frames)."""
    return None if valid is None else frame_mask(valid, frames)[:, None]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Set the padding of (batch, channels, frames) to zero, whatever it holds."""
    return x if mask is None else x.masked_fill(~mask, 0)
