"""Hum of the mains: found where it is loud, filtered out, and never found in clean speech."""

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.audio.hum import remove_hum
from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.inference import SpeakerVerification
from tests.voices import voice

RATE = 16000


@pytest.fixture(scope="module")
def model():
    return SpeakerVerification.from_hparams(run_opts={"device": "cpu"})


def rms(wav):
    return np.sqrt(np.square(wav).mean())


def hum(size, mains, level, rate=RATE):
    """Make a line and some of its harmonics, of a level in dBFS, off by as much as the mains are."""
    time = np.arange(size) / rate
    lines = ((1, 1.0), (2, 0.3), (3, 0.3), (5, 0.1))
    wav = sum(share * np.sin(2 * np.pi * (mains + 0.1) * n * time + n) for n, share in lines)
    return (wav * 10 ** (level / 20) / rms(wav)).astype(np.float32)


@pytest.mark.parametrize("mains", [50, 60])
@pytest.mark.parametrize("decibels", [-10, 0, 10, 30])
@pytest.mark.parametrize("rate", [8000, RATE])
def test_it_is_filtered_out(mains, decibels, rate):
    wav = voice(4.0, rate=rate).astype(np.float32)
    level = 20 * np.log10(rms(wav)) + decibels
    clean, found = remove_hum(wav + hum(len(wav), mains, level, rate), rate)
    assert found == mains
    assert rms((clean - wav)[rate // 2 : -rate // 2]) < 0.35 * rms(wav)


@pytest.mark.parametrize("mains", [50, 60])
@pytest.mark.parametrize("decibels", [-5, 10])
def test_speech_over_hum_is_nearer_to_itself_without(
    tmp_path, model, speech_data, detector, monkeypatch, mains, decibels
):
    paths = sorted((speech_data / "speechocean762" / "wav").rglob("*.*"))[100:3000:700]
    for path in paths:
        wav = read_mono(path, RATE)
        level = 20 * np.log10(rms(wav)) + decibels
        soundfile.write(
            tmp_path / "a.wav", wav + hum(len(wav), mains, level), RATE, subtype="FLOAT"
        )
        outcome = model.verify_files(path, tmp_path / "a.wav")
        assert outcome.warnings == (f"{tmp_path / 'a.wav'}: a hum of {mains} Hz was filtered out",)
        with monkeypatch.context() as patch:
            patch.setattr("speechbrain_bccmt.audio.speech.remove_hum", lambda wav, rate: (wav, 0))
            with_hum = model.verify_files(path, tmp_path / "a.wav")
        assert outcome.decision and 1 - outcome.score < 0.7 * (1 - with_hum.score)


def test_clean_speech_is_left_as_it_is(speech_data):
    paths = sorted((speech_data / "speechocean762" / "wav").rglob("*.*"))[::40]
    wavs = [read_mono(path, RATE) for path in paths]
    found = [remove_hum(wav, RATE) for wav in wavs]
    assert all(same is wav for (same, mains), wav in zip(found, wavs, strict=True) if not mains)
    assert sum(mains > 0 for _, mains in found) <= 0.02 * len(wavs)


@pytest.mark.parametrize(
    "wav", [np.zeros(RATE * 3), np.ones(RATE * 3), np.zeros(100), np.zeros(1)]
)
def test_nothing_hums(wav):
    assert remove_hum(wav, RATE)[1] == 0


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_hum(seed):
    assert remove_hum(voice(3.0, seed).astype(np.float32), RATE)[1] == 0
    assert remove_hum(resample(voice(3.0, seed, 8000).astype(np.float32), 8000, RATE), RATE)[1] == 0
