"""Front ends: waveform (batch, samples) to log-mel features (batch, frames, mels).

There are two: SpeechBrain's `Fbank` (centred frames, HTK mel scale, decibels) and the Kaldi-compatible
`KaldiFbank` of this module. Each recipe builds one from its YAML and uses it in training, verification and
inference.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from speechbrain.lobes.features import Fbank
from speechbrain.utils.autocast import fwd_default_precision
from torchaudio.compliance.kaldi import get_mel_banks

# The filters of sherpa-onnx end this many Hz below the Nyquist frequency, whatever the sample rate.
BELOW_NYQUIST = 400
WINDOWS = {
    # Kaldi's own window: like Hann, but flatter, and zero at its ends.
    "povey": lambda size: torch.hann_window(size, periodic=False).pow(0.85),
    "hamming": lambda size: torch.hamming_window(size, periodic=False, alpha=0.54, beta=0.46),
    "hanning": lambda size: torch.hann_window(size, periodic=False),
    "rectangular": torch.ones,
}


class KaldiFbank(torch.nn.Module):
    """Log-mel filter banks as Kaldi computes them, for a whole batch at once.

    Equal to `torchaudio.compliance.kaldi.fbank` with dither 0 and otherwise its defaults: only complete frames
    (`snip_edges`), each frame with its mean removed, pre-emphasised, windowed and zero-padded to a power of
    two; power spectrum, triangular mel filters, natural logarithm, floored at float32's epsilon. There is no
    loop over utterances, and everything runs on the device of the input.

    Parameters
    ----------
    n_mels : int
        Number of mel filters.
    sample_rate : int
        Sample rate of the input in Hz.
    win_length : float
        Frame length in milliseconds.
    hop_length : float
        Frame shift in milliseconds.
    f_min : float
        Lower edge of the lowest filter in Hz.
    f_max : float or None
        Upper edge of the highest filter in Hz; half the sample rate if None.
    window : str
        "povey", "hamming", "hanning" or "rectangular".
    preemphasis : float
        Pre-emphasis coefficient.
    scale : float
        Factor on the waveform. 1 keeps waveforms in [-1, 1]; 32768 gives the 16-bit range that Kaldi itself
        reads and that WeSpeaker and 3D-Speaker scale to. Mean normalisation removes the difference, except in
        frames near digital silence, where the logarithm's floor acts.
    centred : bool
        False: the first frame begins with the first sample (Kaldi's `snip_edges` true). True: the first frame is
        centred on the first hop, its beginning reflected, as in Kaldi with `snip_edges` false and in
        sherpa-onnx. The one or two frames that Kaldi fills by reflection at the end are left out: in a padded
        batch they would depend on the padding.

    Raises
    ------
    ValueError
        If an option is out of range.

    Examples
    --------
    >>> front_end = KaldiFbank(n_mels=80)
    >>> front_end(torch.randn(2, 16000)).shape
    torch.Size([2, 98, 80])
    """

    def __init__(
        self,
        n_mels: int = 80,
        sample_rate: int = 16000,
        win_length: float = 25.0,
        hop_length: float = 10.0,
        f_min: float = 20.0,
        f_max: float | None = None,
        window: str = "povey",
        preemphasis: float = 0.97,
        scale: float = 1.0,
        centred: bool = False,
    ):
        super().__init__()
        f_max = sample_rate / 2 if f_max is None else f_max
        if window not in WINDOWS:
            raise ValueError(f"window is '{window}', expected one of {', '.join(WINDOWS)}")
        if not 0 <= f_min < f_max <= sample_rate / 2:
            raise ValueError(f"filters from {f_min} to {f_max} Hz do not fit in 0 to {sample_rate / 2} Hz")
        if n_mels < 4:
            raise ValueError(f"n_mels is {n_mels}, expected at least 4")
        if not 0 <= preemphasis <= 1:
            raise ValueError(f"preemphasis is {preemphasis}, expected 0 to 1")
        self.n_mels = n_mels
        self.sample_rate = sample_rate
        self.f_min, self.f_max, self.window_name = f_min, f_max, window
        self.preemphasis = preemphasis
        self.scale = scale
        self.window_size = int(sample_rate * win_length / 1000)
        self.hop_size = int(sample_rate * hop_length / 1000)
        if self.window_size < 2 or self.hop_size < 1:
            raise ValueError(
                f"frames of {win_length} ms every {hop_length} ms are too short at {sample_rate} Hz"
            )
        self.n_reflected = (self.window_size - self.hop_size) // 2 if centred else 0
        if self.n_reflected < 0:
            raise ValueError(f"frames of {win_length} ms every {hop_length} ms leave gaps: use centred=False")
        self.n_fft = 2 ** (self.window_size - 1).bit_length()
        filters, _ = get_mel_banks(n_mels, self.n_fft, float(sample_rate), f_min, f_max, 100.0, -500.0, 1.0)
        # Constants, not parameters: they move with the module and are not stored in checkpoints.
        # The bin at half the sample rate has no weight in any filter, so it is left out.
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)
        self.register_buffer("window", WINDOWS[window](self.window_size), persistent=False)

    @fwd_default_precision(cast_inputs=torch.float32)
    def forward(self, wavs: torch.Tensor) -> torch.Tensor:
        """Compute log-mel features.

        Parameters
        ----------
        wavs : torch.Tensor
            Waveforms, (batch, samples), at `sample_rate`. Zero padding at the end changes none of the frames
            that lie within the waveform.

        Returns
        -------
        torch.Tensor
            (batch, frames, n_mels), float32; without `centred` these are 1 + (samples - window) // hop frames.

        Raises
        ------
        ValueError
            If the input has another number of dimensions or is shorter than one frame.
        """
        if wavs.dim() != 2:
            raise ValueError(f"waveforms have shape {tuple(wavs.shape)}, expected (batch, samples)")
        wavs = wavs.to(self.filters.dtype) * self.scale
        if self.n_reflected:
            wavs = torch.cat([wavs[:, : self.n_reflected].flip(1), wavs], dim=1)
        power = self._power(wavs)
        energies = power @ self.filters.to(power.device)
        return energies.clamp(min=torch.finfo(torch.float32).eps).log()

    def frame_count(self, n_samples):
        """Return the number of frames of a waveform; see the function `frame_count`."""
        return _clip(1 + (n_samples + self.n_reflected - self.window_size) // self.hop_size)

    def _power(self, wavs: torch.Tensor) -> torch.Tensor:
        # The order of operations is torchaudio's: in bins 90 dB below the loudest of their frame, rounding errors
        # reach 1e-3 of the logarithm, and only the same order gives the same value.
        if wavs.shape[1] < self.window_size:
            shortest = self.window_size - self.n_reflected
            samples = max(wavs.shape[1] - self.n_reflected, wavs.shape[1] // 2)
            raise ValueError(
                f"waveforms have {samples} samples, shorter than one frame: the minimum "
                f"is {shortest} samples ({1000 * shortest / self.sample_rate:g} ms at {self.sample_rate} Hz)"
            )
        frames = wavs.unfold(1, self.window_size, self.hop_size)
        frames = frames - frames.mean(dim=2, keepdim=True)
        previous = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
        frames = (frames - self.preemphasis * previous) * self.window.to(wavs.device)
        return torch.fft.rfft(frames, self.n_fft)[..., :-1].abs().pow(2)


def build_front_end(name: str = "speechbrain", sample_rate: int = 16000, n_mels: int = 80) -> torch.nn.Module:
    """Build a front end by name.

    Parameters
    ----------
    name : str
        "speechbrain": SpeechBrain's `Fbank`; "kaldi": `KaldiFbank`; "sherpa": the features that sherpa-onnx computes,
        a `KaldiFbank` of centred frames whose filters end 400 Hz below half the sample rate.
    sample_rate : int
        Sample rate of the input in Hz.
    n_mels : int
        Number of mel filters.

    Raises
    ------
    ValueError
        If there is no such front end.

    Examples
    --------
    >>> build_front_end("sherpa").f_max
    7600.0
    """
    if name == "speechbrain":
        return Fbank(sample_rate=sample_rate, n_mels=n_mels)
    if name == "kaldi":
        return KaldiFbank(n_mels, sample_rate)
    if name == "sherpa":
        return KaldiFbank(n_mels, sample_rate, f_max=sample_rate / 2 - BELOW_NYQUIST, centred=True)
    raise ValueError(f"front_end is '{name}', expected speechbrain, kaldi or sherpa")


def frame_count(front_end: torch.nn.Module, n_samples):
    """Return the number of frames that a front end computes for a waveform.

    Parameters
    ----------
    front_end : torch.nn.Module
        A `KaldiFbank` or SpeechBrain's `Fbank`.
    n_samples : int or torch.Tensor
        Length of the waveform in samples; a tensor of integers gives a tensor.

    Returns
    -------
    int or torch.Tensor
        The number of frames, 0 where the waveform is too short for one.

    Raises
    ------
    TypeError
        If the front end is of another kind.

    Examples
    --------
    >>> frame_count(KaldiFbank(), 16000), frame_count(Fbank(n_mels=80), 16000)
    (98, 101)
    """
    if isinstance(front_end, KaldiFbank):
        return front_end.frame_count(n_samples)
    stft = _stft(front_end)
    padding = 2 * (stft.n_fft // 2) if stft.center else 0
    frames = _clip(1 + (n_samples + padding - stft.n_fft) // stft.hop_length)
    # Without samples there are no frames, however much padding there is.
    return frames * (n_samples > 0)


def sample_rate(front_end: torch.nn.Module) -> int:
    """Return the sample rate in Hz that a front end expects.

    Parameters
    ----------
    front_end : torch.nn.Module
        A `KaldiFbank` or SpeechBrain's `Fbank`.

    Returns
    -------
    int
        The sample rate in Hz.

    Examples
    --------
    >>> sample_rate(KaldiFbank(sample_rate=8000))
    8000
    """
    return front_end.sample_rate if isinstance(front_end, KaldiFbank) else _stft(front_end).sample_rate


def band_frequencies(front_end: torch.nn.Module) -> np.ndarray:
    """Return the centre frequencies of a front end's mel bands.

    Parameters
    ----------
    front_end : torch.nn.Module
        A `KaldiFbank` or SpeechBrain's `Fbank`.

    Returns
    -------
    numpy.ndarray
        (mels,), in Hz, ascending.

    Raises
    ------
    TypeError
        If the front end is of another kind.

    Examples
    --------
    >>> band_frequencies(KaldiFbank()).round()[[0, 40, 79]].tolist()
    [42.0, 1842.0, 7736.0]
    """
    if isinstance(front_end, KaldiFbank):
        bands = front_end
    else:
        _stft(front_end)  # refuses other kinds
        bands = front_end.compute_fbanks
    # Both space their bands evenly on the HTK mel scale, between the edges of the first and the last band.
    low, high = (2595 * math.log10(1 + edge / 700) for edge in (bands.f_min, bands.f_max))
    return 700 * (10 ** (np.linspace(low, high, bands.n_mels + 2)[1:-1] / 2595) - 1)


def relative_lengths(front_end: torch.nn.Module, n_samples: torch.Tensor) -> torch.Tensor:
    """Compute relative lengths of a padded batch that are exact in frames.

    SpeechBrain's relative lengths count samples; converted to frames they can be off by one, and then an
    utterance's embedding depends on its batch. These count frames, less a quarter of a frame: rounded (as the
    encoders do) or compared with a frame's index (as `InputNormalization` does) they give the same frames,
    which plain ratios do not, because of float32 rounding.

    Parameters
    ----------
    front_end : torch.nn.Module
        A `KaldiFbank` or SpeechBrain's `Fbank`.
    n_samples : torch.Tensor
        Length of each utterance of the batch in samples, (batch,); the longest fills the batch.

    Returns
    -------
    torch.Tensor
        Relative lengths, (batch,), float32, in (0, 1).

    Examples
    --------
    >>> lengths = relative_lengths(KaldiFbank(), torch.tensor([16000, 8000]))
    >>> torch.round(lengths * 98)
    tensor([98., 48.])
    """
    frames = frame_count(front_end, n_samples)
    return (frames - 0.25) / frames.max()


def _stft(front_end: torch.nn.Module) -> torch.nn.Module:
    if not isinstance(front_end, Fbank):
        raise TypeError(
            f"the front end is a {type(front_end).__name__}; expected this package's KaldiFbank or "
            "SpeechBrain's Fbank"
        )
    return front_end.compute_STFT


def _clip(frames):
    return frames.clamp(min=0) if isinstance(frames, torch.Tensor) else max(frames, 0)
