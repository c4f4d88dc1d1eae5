"""Noise, reverberation, telephone and SpecAugment on the fly.

The mixing is SpeechBrain's (`AddNoise`, `reverberate`, `SpectrogramDrop`), the telephone's codec torchaudio's.
SpeechBrain's CSV readers are not used: they decode a whole noise file per utterance and draw one offset and one impulse
response per batch. Here every crop has its own, from files cached in memory: a millisecond or two per crop on one
thread.
"""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch
import torchaudio.functional as AF
from speechbrain.augment.freq_domain import SpectrogramDrop
from speechbrain.augment.time_domain import AddNoise
from speechbrain.processing.signal_processing import reverberate

from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.training.crops import CropReader


class AudioBank:
    """Random excerpts of the audio files below a folder.

    Files are resampled and mixed down to mono. Those of up to `cache_seconds` are cached; for longer ones, only the
    excerpt is read.

    Parameters
    ----------
    folder : str or Path
        Searched recursively.
    sample_rate : int
        Rate of the excerpts in Hz.
    cache_seconds : float
        Longest file, in seconds, that is cached.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or has no recording.
    """

    def __init__(self, folder, sample_rate: int = 16000, cache_seconds: float = 20.0):
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}: give the folder of noises or impulse responses, or null"
            )
        self.files = find_recordings(folder)
        self.sample_rate = sample_rate
        self.cache_seconds = cache_seconds
        self.headers = {}
        self.read_short = CropReader(sample_rate, cache_audio=True)
        self.read_long = CropReader(sample_rate)

    def draw(self, n_samples: int | None = None) -> torch.Tensor:
        """Draw a file and an excerpt of it from torch's default generator.

        Parameters
        ----------
        n_samples : int, optional
            Length of the excerpt; shorter files are repeated. By default the whole file.

        Returns
        -------
        torch.Tensor
            Shape (samples,).

        Raises
        ------
        ValueError
            If the file cannot be read.
        """
        path = self.files[int(torch.randint(len(self.files), (1,)))]
        if path not in self.headers:
            try:
                info = soundfile.info(path)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                raise ValueError(
                    f"cannot read {path}: {error}; remove it from the augmentation folder"
                ) from None
            self.headers[path] = (info.frames, info.samplerate)
        frames, rate = self.headers[path]
        read = self.read_short if frames <= self.cache_seconds * rate else self.read_long
        return read(path, 0, frames, n_samples or frames * self.sample_rate // rate, rate)

    def draw_like(self, wave: torch.Tensor) -> torch.Tensor:
        """Draw an excerpt of the shape of a waveform (1, samples)."""
        return self.draw(wave.shape[1]).unsqueeze(0)


class WaveformAugmentation:
    """Reverberation, then noise, then a telephone line, each with its own probability.

    Parameters
    ----------
    noise_folder, rir_folder : str or Path, optional
        Folders of noises and of room impulse responses; None turns that augmentation off.
    noise_probability, reverb_probability : float
        Share of the crops that are augmented.
    snr_low, snr_high : float
        Range of the signal-to-noise ratio in dB, drawn uniformly.
    rir_seconds : float
        Length of the impulse responses, cut from 5 ms before their peak, the direct sound.
    sample_rate : int
        Rate of the waveforms in Hz.
    telephone_probability : float
        Share of the crops sent through a `telephone_line`.

    Raises
    ------
    FileNotFoundError
        If a folder does not exist or has no audio.

    Examples
    --------
    >>> WaveformAugmentation()(torch.ones(1, 5))
    tensor([[1., 1., 1., 1., 1.]])
    """

    def __init__(
        self,
        noise_folder=None,
        rir_folder=None,
        noise_probability: float = 0.5,
        reverb_probability: float = 0.3,
        snr_low: float = 0.0,
        snr_high: float = 15.0,
        rir_seconds: float = 1.0,
        sample_rate: int = 16000,
        telephone_probability: float = 0.0,
    ):
        self.sample_rate = sample_rate
        self.telephone_probability = telephone_probability
        self.noise_probability = noise_probability
        self.reverb_probability = reverb_probability
        self.rir_samples = round(rir_seconds * sample_rate)
        self.lead_samples = round(0.005 * sample_rate)
        self.rirs = AudioBank(rir_folder, sample_rate) if rir_folder else None
        self.add_noise = None
        if noise_folder:
            noises = AudioBank(noise_folder, sample_rate)
            self.add_noise = AddNoise(snr_low=snr_low, snr_high=snr_high, noise_funct=noises.draw_like)

    def __call__(self, wave: torch.Tensor) -> torch.Tensor:
        """Augment one waveform (1, samples)."""
        if self.rirs is not None and torch.rand(()) < self.reverb_probability:
            rir = self.rirs.draw()
            direct = int(rir.abs().argmax())
            wave = reverberate(wave, rir[max(0, direct - self.lead_samples) :][: self.rir_samples])
        if self.add_noise is not None and torch.rand(()) < self.noise_probability:
            wave = self.add_noise(wave, torch.ones(1))
        if self.telephone_probability and torch.rand(()) < self.telephone_probability:
            wave = telephone_line(wave, self.sample_rate)
        return wave


def telephone_line(waves: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Send waveforms through telephone lines: a band from 100-330 Hz to 3.3-3.9 kHz, 8 kHz and mu-law.

    Band and level are drawn for each waveform.

    Parameters
    ----------
    waves : torch.Tensor
        (batch, samples).
    sample_rate : int
        Their rate in Hz, 8000 or more.

    Returns
    -------
    torch.Tensor
        (batch, samples), at levels from -20 to 0 dB of full scale.

    Examples
    --------
    >>> telephone_line(torch.randn(2, 16000), 16000).shape
    torch.Size([2, 16000])
    """
    samples = waves.shape[-1]
    low, high, level = torch.rand(3, len(waves), 1, device=waves.device)
    low, high, level = 100 + 230 * low, 3300 + 600 * high, 10**-level
    frequency = torch.fft.rfftfreq(samples, 1 / sample_rate, device=waves.device).clamp(min=1)
    band = ((1 + (low / frequency) ** 8) * (1 + (frequency / high) ** 40)).rsqrt()
    narrow = AF.resample(torch.fft.irfft(torch.fft.rfft(waves) * band, samples), sample_rate, 8000)
    narrow = narrow * level / narrow.abs().amax(1, keepdim=True).clamp(min=1e-5)
    narrow = AF.mu_law_decoding(AF.mu_law_encoding(narrow, 256), 256)
    return AF.resample(narrow, 8000, sample_rate)[:, :samples]


class SpecAugment(torch.nn.Module):
    """Time and frequency masks on log-mel features (Park et al. 2019, arXiv 1904.08779), without warping.

    Masked values become zero, the mean of mean-normalised features. Active in training mode only.

    Parameters
    ----------
    time_masks, frequency_masks : int
        Largest number of masks; the number is drawn once per batch.
    time_width, frequency_width : int
        Largest width of a mask in frames and in mels.

    Examples
    --------
    >>> spec_augment = SpecAugment(time_masks=2, frequency_masks=2)
    >>> spec_augment(torch.randn(2, 100, 80)).shape
    torch.Size([2, 100, 80])
    """

    def __init__(
        self, time_masks: int = 2, time_width: int = 10, frequency_masks: int = 2, frequency_width: int = 8
    ):
        super().__init__()
        self.drops = torch.nn.ModuleList(
            SpectrogramDrop(
                drop_length_low=1,
                drop_length_high=width + 1,
                drop_count_low=0,
                drop_count_high=count,
                dim=dim,
            )
            for dim, count, width in ((1, time_masks, time_width), (2, frequency_masks, frequency_width))
            if count > 0
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Mask features (batch, frames, mels); the input is left unchanged."""
        if not self.training:
            return features
        features = features.clone()
        for drop in self.drops:
            features = drop(features)
        return features
