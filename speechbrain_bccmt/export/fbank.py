"""Front ends for exported graphs: the same features in plain convolutions and matrix products.

`FrameSpectrum` is the Fourier transform of overlapping frames as two small matrix products.

ONNX runtimes have no fast transform of real frames, and a plain product with cosines and sines costs as much as a
whole small encoder. This is one step of the Cooley-Tukey factorisation: with n_fft = p * q, sample
n = p * a + b (b < p) and bin k = k1 + q * k2 (k1 < q),

    X[k] = sum over b of exp(-2 pi i k b / n_fft) * (sum over a of x[p * a + b] * exp(-2 pi i k1 a / q)).

The inner sum is a convolution of each of p interleaved signals, the outer one a product for each k1. For 400 or 512
points this takes a sixth of the multiplications.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechbrain_bccmt.export.operators import reshape
from speechbrain_bccmt.features import KaldiFbank, frame_count


class FrameSpectrum(nn.Module):
    """Spectra of windowed frames of a waveform, in plain convolutions and matrix products.

    Parameters
    ----------
    window : Tensor
        (size,), the window; zero-padded to `n_fft`, and no longer than that.
    n_fft : int
        Points of the transform.
    hop_length : int
        Samples from one frame to the next.

    Attributes
    ----------
    bins : Tensor
        (outputs,), bin index (of `n_fft`) of each output. They are not in order; those above n_fft / 2 are the
        conjugates of others, and some bins occur in both forms.

    Raises
    ------
    ValueError
        If the window is longer than the transform.

    Notes
    -----
    The factor p is the common divisor of `n_fft` and `hop_length` nearest to the square root of `n_fft`; if their only
    common divisor is 1, this is the plain product.

    Examples
    --------
    >>> window, wavs = torch.hamming_window(400), torch.randn(2, 1000)
    >>> transform = FrameSpectrum(window, n_fft=400, hop_length=160)
    >>> real, imaginary = transform(transform.crop(wavs))
    >>> exact = torch.fft.fft(wavs.unfold(1, 400, 160) * window).transpose(1, 2)[:, transform.bins]
    >>> torch.allclose(torch.complex(real, imaginary), exact, atol=1e-4)
    True
    """

    def __init__(self, window: Tensor, n_fft: int, hop_length: int):
        super().__init__()
        if len(window) > n_fft:
            raise ValueError(f"a window of {len(window)} samples does not fit in n_fft={n_fft} points")
        common = math.gcd(n_fft, hop_length)
        divisors = [number for number in range(1, common + 1) if common % number == 0]
        p = self.phases = min(divisors, key=lambda number: abs(number - math.sqrt(n_fft)))
        q = n_fft // p
        self.stride = hop_length // p
        self.window_size = len(window)
        length = math.ceil(len(window) / p)
        self.overhang = length * p - len(window)
        # The spectrum of real samples is symmetric, and so is each inner sum: half of the k1 yield all bins.
        self.residues = q // 2 + 1
        k1, a, b = (torch.arange(count, dtype=torch.float64) for count in (self.residues, length, p))
        angle = 2 * torch.pi / q * k1[:, None] * a
        window = F.pad(window.double(), (0, self.overhang)).reshape(length, p)
        inner = torch.einsum("rka,ab->brka", torch.stack([angle.cos(), -angle.sin()]), window)
        k = k1[:, None] + q * b  # (k1, k2): there are as many k2 as b
        angle = 2 * torch.pi / n_fft * k[..., None] * b
        outer = torch.cat([angle.cos(), angle.sin()], 2), torch.cat([-angle.sin(), angle.cos()], 2)
        # Constants, not stored in checkpoints.
        self.register_buffer("inner", inner.reshape(-1, 1, length).float(), persistent=False)
        self.register_buffer("outer_real", outer[0].float(), persistent=False)
        self.register_buffer("outer_imaginary", outer[1].float(), persistent=False)
        self.n_fft = n_fft
        self.register_buffer("bins", k.flatten().long(), persistent=False)

    def crop(self, wavs: Tensor) -> Tensor:
        """Drop the samples of (batch, samples) that are in no frame."""
        surplus = (wavs.shape[1] - self.window_size) % (self.stride * self.phases)
        return wavs[:, : wavs.shape[1] - surplus]

    def forward(self, wavs: Tensor) -> tuple[Tensor, Tensor]:
        """Map (batch, samples), cropped, to real and imaginary parts, (batch, outputs, frames) each."""
        p, r = self.phases, self.residues
        if self.overhang:
            wavs = F.pad(wavs, (0, self.overhang))
        interleaved = reshape(wavs, 0, -1, p).transpose(1, 2)
        inner = F.conv1d(interleaved, self.inner, stride=self.stride, groups=p)
        inner = reshape(inner, 0, p, 2, r, -1).permute(0, 3, 2, 1, 4)
        inner = reshape(inner, 0, r, 2 * p, -1)
        return tuple(
            reshape(outer @ inner, 0, p * r, -1) for outer in (self.outer_real, self.outer_imaginary)
        )

    def spread(self, filters: Tensor) -> Tensor:
        """Rearrange filters over bins, (bins, filters), to the order of the outputs: (filters, outputs).

        Each bin counts once; bins outside the filters have weight zero.
        """
        spread = filters.new_zeros(filters.shape[1], len(self.bins))
        place = {min(k, self.n_fft - k): index for index, k in enumerate(self.bins.tolist())}
        for k, weights in enumerate(filters):
            spread[:, place[k]] = weights
        return spread


class ExportFbank(nn.Module):
    """SpeechBrain's `Fbank` in plain convolutions and matrix products, for export.

    Parameters
    ----------
    fbank : speechbrain.lobes.features.Fbank
        The front end to replace.

    Raises
    ------
    ValueError
        If its transform is not centred, zero-padded and one-sided, as `Fbank` builds it.

    Examples
    --------
    >>> from speechbrain.lobes.features import Fbank
    >>> fbank, wavs = Fbank(n_mels=80), torch.randn(2, 1000)
    >>> torch.allclose(ExportFbank(fbank)(wavs), fbank(wavs), atol=1e-3)
    True
    """

    def __init__(self, fbank: nn.Module):
        super().__init__()
        stft = fbank.compute_STFT
        options = stft.center, stft.pad_mode, stft.onesided, stft.normalized_stft
        if options != (True, "constant", True, False):
            raise ValueError(
                f"an STFT with center, pad_mode, onesided, normalized_stft = {options} has no form for export"
            )
        # torch.stft centres a window that is shorter than the transform.
        before = (stft.n_fft - stft.win_length) // 2
        padding = stft.n_fft // 2
        self.padding = padding - before, padding - (stft.n_fft - stft.win_length - before)
        self.spectrum = FrameSpectrum(stft.window, stft.n_fft, stft.hop_length)
        self.fbank = copy.deepcopy(fbank)
        bank = self.fbank.compute_fbanks
        self.log_mel, bank.log_mel = bank.log_mel, False
        with torch.no_grad():
            filters = bank(torch.eye(stft.n_fft // 2 + 1).unsqueeze(0))[0]
        self.register_buffer("filters", self.spectrum.spread(filters))

    def forward(self, wavs: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, mels), or to the features that the front end derives from these."""
        real, imaginary = self.spectrum(self.spectrum.crop(F.pad(wavs, self.padding)))
        features = self.filters @ (real.square() + imaginary.square())
        if self.log_mel:
            features = self.fbank.compute_fbanks._amplitude_to_DB(features)
        features = features.transpose(1, 2)
        if self.fbank.deltas:
            first = self.fbank.compute_deltas(features)
            features = torch.cat([features, first, self.fbank.compute_deltas(first)], dim=2)
        return self.fbank.context_window(features) if self.fbank.context else features


class ExportKaldiFbank(nn.Module):
    """`KaldiFbank` in plain convolutions and matrix products, for export.

    The waveform is pre-emphasised instead of its frames, whose means and first samples then need a correction.

    Parameters
    ----------
    fbank : KaldiFbank
        The front end to replace.

    Examples
    --------
    >>> fbank, wavs = KaldiFbank(), torch.randn(2, 1000)
    >>> torch.allclose(ExportKaldiFbank(fbank)(wavs), fbank(wavs), atol=1e-3)
    True
    """

    def __init__(self, fbank: KaldiFbank):
        super().__init__()
        self.scale, self.preemphasis = fbank.scale, fbank.preemphasis
        self.n_reflected, self.hop_size = fbank.n_reflected, fbank.hop_size
        window, size = fbank.window.double(), fbank.window_size
        self.spectrum = FrameSpectrum(window, fbank.n_fft, fbank.hop_size)
        # Frame means are computed from the means of blocks, which frames share.
        self.block = math.gcd(size, fbank.hop_size)
        self.window_size = size
        # What a frame's mean, and its first sample minus the previous one, add to the emphasised frame; subtracted from
        # its spectrum. A window that begins with zero removes the latter.
        surplus = torch.zeros(size, 2, dtype=torch.float64)
        surplus[:, 0] = 1 - fbank.preemphasis
        surplus[0, 1] = fbank.preemphasis
        self.jumps = bool(window[0])
        spectrum = torch.fft.fft(surplus * window[:, None], fbank.n_fft, dim=0)[self.spectrum.bins]
        correction = torch.stack([spectrum.real, spectrum.imag])[..., : 1 + self.jumps]
        self.register_buffer("correction", correction.float(), persistent=False)
        self.register_buffer("filters", self.spectrum.spread(fbank.filters))

    def forward(self, wavs: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, frames, mels)."""
        wavs = wavs * self.scale
        parts = [wavs]
        if self.n_reflected:
            parts.insert(0, wavs[:, : self.n_reflected].flip(1))
        # With the sample before the first frame, a copy of the first one.
        wavs = torch.cat([parts[0][:, :1], *parts], dim=1)
        frames, before = self.spectrum.crop(wavs[:, 1:]), wavs[:, :-1]
        before = before[:, : frames.shape[1]]
        surplus = self._mean(frames)
        if self.jumps:
            starts = frames.shape[1] - self.window_size + 1
            jump = frames[:, :starts : self.hop_size] - before[:, :starts : self.hop_size]
            surplus = torch.cat([surplus, jump.unsqueeze(1)], dim=1)
        real, imaginary = self.spectrum(frames - self.preemphasis * before)
        real = real - self.correction[0] @ surplus
        imaginary = imaginary - self.correction[1] @ surplus
        energies = (self.filters @ (real.square() + imaginary.square())).transpose(1, 2)
        return energies.clamp(min=torch.finfo(torch.float32).eps).log()

    def _mean(self, wavs: Tensor) -> Tensor:
        """Map (batch, samples), cropped, to the frame means, (batch, 1, frames)."""
        blocks = reshape(wavs, 0, 1, -1, self.block).mean(3)
        return F.avg_pool1d(blocks, self.window_size // self.block, self.hop_size // self.block)


def exportable_front_end(front_end: nn.Module) -> nn.Module:
    """Return the exportable form of a front end.

    Raises
    ------
    TypeError
        If it is neither a `KaldiFbank` nor SpeechBrain's `Fbank`.
    """
    frame_count(front_end, 0)  # raises for other kinds
    return ExportKaldiFbank(front_end) if isinstance(front_end, KaldiFbank) else ExportFbank(front_end)
