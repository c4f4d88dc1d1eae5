"""Augmentation: folders are optional, levels are what was asked for, nothing depends on rate or channels."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_bccmt.training.augmentation import (
    AudioBank,
    SpecAugment,
    WaveformAugmentation,
    telephone_line,
)


@pytest.fixture
def noise_folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "noise" / "sub"
    folder.mkdir(parents=True)
    soundfile.write(folder / "short.wav", 0.1 * rng.standard_normal((2000, 2)), 8000)
    soundfile.write(folder / "long.flac", 0.1 * rng.standard_normal(48000), 16000)
    return folder.parent


def energy(wave):
    return wave.square().mean()


def test_without_folders_nothing_happens():
    wave = torch.randn(1, 1000)
    assert torch.equal(WaveformAugmentation()(wave), wave)


@pytest.mark.parametrize("snr", [0, 10])
def test_noise_has_the_asked_level(noise_folder, snr):
    augment = WaveformAugmentation(noise_folder, noise_probability=1, snr_low=snr, snr_high=snr)
    wave = 0.1 * torch.randn(1, 16000)
    noisy = augment(wave)
    # SpeechBrain scales speech and noise so that the sum keeps about the level of the speech.
    gain = float((noisy * wave).sum() / energy(wave) / wave.numel())
    noise = noisy - gain * wave
    measured = 10 * torch.log10(energy(gain * wave) / energy(noise))
    assert float(measured) == pytest.approx(snr, abs=0.7)


def test_probability_is_the_share(noise_folder):
    augment = WaveformAugmentation(noise_folder, noise_probability=0.3)
    wave = torch.randn(1, 400)
    changed = sum(not torch.equal(augment(wave), wave) for _ in range(400))
    assert 80 < changed < 160


def test_reverberation_is_the_convolution(tmp_path):
    rir = np.zeros(1600)
    rir[[100, 500]] = 0.8, 0.4  # direct sound, and an echo 400 samples later at half its amplitude
    soundfile.write(tmp_path / "rir.wav", rir, 16000, subtype="FLOAT")
    augment = WaveformAugmentation(rir_folder=tmp_path, reverb_probability=1)
    wave = torch.randn(1, 8000)
    expected = wave.clone()
    expected[:, 400:] += 0.5 * wave[:, :-400]
    reverberant = augment(wave)[:, 400:]
    assert torch.nn.functional.cosine_similarity(reverberant, expected[:, 400:]) > 0.999


def test_late_direct_sound_is_kept(tmp_path):
    rir = np.zeros(32000)
    rir[30000] = 1.0
    soundfile.write(tmp_path / "rir.wav", rir, 16000, subtype="FLOAT")
    wave = torch.randn(1, 8000)
    reverberant = WaveformAugmentation(rir_folder=tmp_path, reverb_probability=1, rir_seconds=0.5)(wave)
    assert torch.nn.functional.cosine_similarity(reverberant, wave) > 0.99


def test_bank_reads_any_rate_and_channels(noise_folder):
    bank = AudioBank(noise_folder, 16000, cache_seconds=1)
    lengths = {len(bank.draw()) for _ in range(20)}
    assert lengths == {4000, 48000}
    assert all(bank.draw(10000).shape == (10000,) for _ in range(10))


def test_a_telephone_passes_no_treble():
    torch.manual_seed(0)
    wave = 0.1 * torch.randn(1, 16000)
    heard = WaveformAugmentation(telephone_probability=1)(wave)
    power = torch.fft.rfft(heard[0]).abs().square()  # a bin is 1 Hz
    assert heard.shape == wave.shape
    assert (
        power[4500:].mean() < 1e-3 * power[1000:3000].mean()
        and power[:40].mean() < 0.1 * power[1000:3000].mean()
    )
    assert torch.equal(WaveformAugmentation(telephone_probability=0)(wave), wave)


def test_each_telephone_line_has_its_own_band_and_level():
    torch.manual_seed(0)
    wave = 0.1 * torch.randn(16000)
    first, second = telephone_line(torch.stack([wave, wave]), 16000)
    assert not torch.allclose(first / first.abs().max(), second / second.abs().max(), atol=0.05)
    assert float(first.abs().max()) != pytest.approx(float(second.abs().max()), rel=0.05)


def test_the_generator_decides(noise_folder):
    augment = WaveformAugmentation(noise_folder, noise_probability=0.5)
    wave = torch.randn(1, 4000)

    def three():
        torch.manual_seed(3)
        return torch.cat([augment(wave) for _ in range(3)])

    assert torch.equal(three(), three())


@pytest.mark.parametrize("option", ["noise_folder", "rir_folder"])
def test_wrong_folders_are_named(tmp_path, option):
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        WaveformAugmentation(**{option: tmp_path / "nothing_here"})
    with pytest.raises(FileNotFoundError, match="holds no recording"):
        WaveformAugmentation(**{option: tmp_path})


def test_unreadable_noise_is_named(tmp_path):
    (tmp_path / "broken.wav").write_text("no audio")
    with pytest.raises(ValueError, match="broken.wav"):
        AudioBank(tmp_path).draw()


def test_spec_augment_masks_in_training_only():
    spec_augment = SpecAugment(time_masks=2, time_width=10, frequency_masks=2, frequency_width=8)
    features = torch.rand(4, 100, 80) + 1
    original = features.clone()
    masked = torch.stack([spec_augment(features) for _ in range(20)])
    assert torch.equal(features, original)
    share = (masked == 0).float().mean()
    assert 0.02 < share < 0.3
    time_masked = (masked == 0).all(-1).sum(-1)
    assert time_masked.max() <= 20
    assert torch.equal(spec_augment.eval()(features), original)
