"""Front ends against torchaudio's Kaldi port, and how many frames they make."""

import csv
import random

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization
from torchaudio.compliance import kaldi

from speechbrain_bccmt.features import (
    KaldiFbank,
    band_frequencies,
    frame_count,
    relative_lengths,
    sample_rate,
)


def reference(wav, window="povey", **options):
    return kaldi.fbank(wav[None], dither=0.0, num_mel_bins=80, window_type=window, **options)


def synthetic_speech(seconds=1.5, seed=0):
    """Vibrating harmonics with pauses and faint noise: 60 dB of dynamic range, like speech."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    pitch = 2 * np.pi * np.cumsum(120 + 20 * np.sin(5 * time)) / 16000
    voice = sum(np.sin(k * pitch) / k for k in range(1, 30)) * np.clip(np.sin(7 * time), 0, 1)
    return torch.from_numpy(0.1 * voice + 1e-4 * generator.standard_normal(time.size)).float()


@pytest.mark.parametrize("window", ["povey", "hamming", "hanning", "rectangular"])
@pytest.mark.parametrize("scale", [1.0, 32768.0])
def test_parity_synthetic(window, scale):
    wav = synthetic_speech()
    features = KaldiFbank(window=window, scale=scale)(wav[None])[0]
    assert torch.allclose(features, reference(wav * scale, window), atol=1e-3, rtol=0)


def test_parity_of_other_options():
    wav = synthetic_speech()
    front_end = KaldiFbank(
        n_mels=40, sample_rate=8000, win_length=32, hop_length=8, f_min=60, f_max=3500, preemphasis=0.9
    )
    expected = kaldi.fbank(
        wav[None], dither=0.0, num_mel_bins=40, sample_frequency=8000, frame_length=32, frame_shift=8,
        low_freq=60, high_freq=3500, preemphasis_coefficient=0.9,
    )  # fmt: skip
    assert torch.allclose(front_end(wav[None])[0], expected, atol=1e-3, rtol=0)


def test_centred_frames_are_kaldis_but_for_those_reflected_at_the_end():
    front_end = KaldiFbank(f_max=7600, centred=True)
    for n_samples in (400, 16000, 16079, 16080, 16120):
        wav = synthetic_speech()[:n_samples]
        features = front_end(wav[None])[0]
        expected = reference(wav, high_freq=7600, snip_edges=False)
        assert len(features) == frame_count(front_end, n_samples)
        assert len(expected) - len(features) in (1, 2)
        assert torch.allclose(features, expected[: len(features)], atol=1e-3, rtol=0)
    assert front_end(torch.rand(1, 280)).shape[1] == 1
    for n_samples in (100, 279):
        with pytest.raises(ValueError, match=f"{n_samples} samples.*280"):
            front_end(torch.zeros(1, n_samples))


@pytest.mark.parametrize("corpus", ["speechocean762", "arabic_speech_commands", "librispeech_mini"])
def test_parity_on_real_speech(speech_data, corpus):
    with open(speech_data / corpus / "meta" / "utterances.csv", newline="", encoding="utf-8") as file:
        names = [row["utterance"] for row in csv.DictReader(file)]
    front_end = KaldiFbank()
    for name in random.Random(1).sample(names, 8):
        wav, rate = soundfile.read(speech_data / corpus / "wav" / name, dtype="float32")
        assert rate == 16000
        wav = torch.from_numpy(wav)
        assert torch.allclose(front_end(wav[None])[0], reference(wav), atol=1e-3, rtol=0), name


@pytest.mark.parametrize("centred", [False, True])
def test_batch_equals_single_and_padding_changes_nothing(centred):
    wavs = [synthetic_speech(seconds, seed) for seed, seconds in enumerate((0.7, 1.31, 2.0))]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    front_end = KaldiFbank(centred=centred)
    batch = front_end(padded)
    for row, wav in zip(batch, wavs, strict=True):
        alone = front_end(wav[None])[0]
        assert len(alone) == frame_count(front_end, len(wav))
        assert torch.allclose(row[: len(alone)], alone, atol=1e-5)


def test_silence_and_gradient():
    silence = KaldiFbank()(torch.zeros(2, 16000))
    assert torch.allclose(silence, torch.tensor(torch.finfo(torch.float32).eps).log())
    wav = torch.zeros(1, 1600)
    wav[0, 800:] = synthetic_speech()[:800]
    wav.requires_grad_()
    KaldiFbank()(wav).sum().backward()
    assert wav.grad.isfinite().all()


def test_autocast_and_half_input():
    wav = synthetic_speech()[None]
    expected = KaldiFbank()(wav)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(KaldiFbank()(wav), expected)
    assert torch.allclose(KaldiFbank()(wav.double()), expected)
    assert KaldiFbank()(wav.half()).dtype == torch.float32


def test_refusals():
    with pytest.raises(ValueError, match="399 samples, shorter than one frame: the minimum is 400 samples"):
        KaldiFbank()(torch.zeros(1, 399))
    assert KaldiFbank()(torch.zeros(1, 400)).shape == (1, 1, 80)
    with pytest.raises(ValueError, match="expected \\(batch, samples\\)"):
        KaldiFbank()(torch.zeros(16000))
    for options in (
        {"window": "blackman"},
        {"f_max": 9000},
        {"n_mels": 2},
        {"preemphasis": 2},
        {"win_length": 0},
    ):
        with pytest.raises(ValueError):
            KaldiFbank(**options)


def test_nothing_to_save():
    assert not KaldiFbank().state_dict() and not list(KaldiFbank().parameters())


@pytest.mark.parametrize(
    "front_end", [KaldiFbank(), Fbank(n_mels=80), Fbank(n_mels=80, n_fft=512, hop_length=8)]
)
def test_frame_count(front_end):
    lengths = [400, 401, 559, 560, 561, 1600, 15999, 16000, 16001]
    for n_samples in lengths:
        assert frame_count(front_end, n_samples) == front_end(torch.zeros(1, n_samples)).shape[1]
    counts = frame_count(front_end, torch.tensor([0, *lengths]))
    assert counts.dtype == torch.int64
    assert counts.tolist() == [0] + [frame_count(front_end, n_samples) for n_samples in lengths]
    assert frame_count(front_end, 0) == 0
    assert sample_rate(front_end) == 16000
    with pytest.raises(TypeError, match="Linear"):
        frame_count(torch.nn.Linear(1, 1), 16000)


@pytest.mark.parametrize("front_end", [KaldiFbank(), Fbank(n_mels=80)])
def test_relative_lengths_are_exact(front_end):
    """The same valid frames for the encoders (rounding) and for InputNormalization (comparison)."""
    for longest in (16000, 1600001, 160000, 48123):
        n_samples = torch.cat([torch.arange(400, longest, 157), torch.tensor([longest])])
        frames = frame_count(front_end, n_samples)
        total = int(frames.max())
        lengths = relative_lengths(front_end, n_samples)
        assert torch.equal(torch.round(lengths * total), frames.float())
    feats = torch.arange(total).float().expand(len(frames), total)[..., None]
    normalised = InputNormalization(norm_type="sentence", std_norm=False)(feats, lengths)
    means = feats[:, 0, 0] - normalised[:, 0, 0]
    assert torch.allclose(means, (frames - 1) / 2, rtol=1e-5)


def test_computes_where_the_input_is():
    """Constants follow the input; the meta device stands for any other than the CPU."""
    feats = KaldiFbank().forward(torch.zeros(2, 16000, device="meta"), force_allow_autocast=True)
    assert feats.device.type == "meta" and feats.shape == (2, 98, 80)


@pytest.mark.parametrize(
    "front_end",
    [
        KaldiFbank(),
        KaldiFbank(n_mels=40, f_max=7600),
        Fbank(n_mels=80),
        Fbank(n_mels=24, f_min=100, f_max=3800, sample_rate=8000),
    ],
    ids=["kaldi", "kaldi 40", "fbank", "fbank 8 kHz"],
)
def test_band_frequencies_are_those_of_the_loudest_tone(front_end):
    rate = sample_rate(front_end)
    found = band_frequencies(front_end)
    assert (np.diff(found) > 0).all()
    for tone in (620.0, 1400.0, 3000.0):  # lower bands are narrower than a bin of the spectrum
        wav = torch.sin(2 * np.pi * tone * torch.arange(rate) / rate)[None]
        loudest = front_end(wav)[0].mean(0).argmax()
        width = np.gradient(found)[loudest]
        assert abs(found[loudest] - tone) < width


def test_band_frequencies_of_speechbrain_are_its_own():
    front_end = Fbank(n_mels=60)
    np.testing.assert_allclose(band_frequencies(front_end), front_end.compute_fbanks.f_central, rtol=1e-4)
    with pytest.raises(TypeError, match="Linear"):
        band_frequencies(torch.nn.Linear(1, 1))
