"""What people have: one utterance against copies of itself, at every level, format, rate and number of channels."""

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.inference import SpeakerVerification
from tests.audio.test_containers import encode

pytestmark = pytest.mark.usefixtures("detector")
RATE = 16000
FORMATS = {
    "wav16": (".wav", "PCM_16"),
    "wav24": (".wav", "PCM_24"),
    "float": (".wav", "FLOAT"),
    "flac": (".flac", "PCM_24"),
    "mp3": (".mp3", "MPEG_LAYER_III"),
    "opus": (".opus", "OPUS"),
    "m4a": (".m4a", "aac"),
}


@pytest.fixture(scope="module")
def model():
    return SpeakerVerification.from_hparams(run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def spoken(speech_data):
    """One utterance, (samples,), at a peak of 0.5."""
    path = sorted((speech_data / "speechocean762" / "wav").rglob("*.*"))[7]
    wav = read_mono(path, RATE)
    return 0.5 * wav / np.abs(wav).max()


@pytest.fixture
def verify(model, spoken, tmp_path):
    """Return a function that writes a copy (samples, channels) and verifies it against the utterance."""
    soundfile.write(tmp_path / "first.wav", spoken, RATE, subtype="FLOAT")

    def run(wav, rate=RATE, kind="wav24"):
        ending, codec = FORMATS[kind]
        path, wav = tmp_path / f"copy{ending}", np.asarray(wav, dtype=np.float32)
        wav = wav[:, None] if wav.ndim == 1 else wav
        if kind == "m4a":
            encode(path, wav.mean(axis=1), rate, codec, wav.shape[1])
        else:
            kind = {"mp3": "MP3", "opus": "OGG", "flac": "FLAC"}.get(kind, "WAV")
            soundfile.write(path, wav, rate, format=kind, subtype=codec)
        outcome = model.verify_files(tmp_path / "first.wav", path)
        return outcome, [text.split(": ", 1)[1] for text in outcome.warnings]

    return run


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rate", [16000, 24000, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_formats_rates_and_channels(verify, spoken, kind, rate, channels):
    wav = resample(spoken, RATE, rate)[:, None].repeat(channels, 1)
    outcome, warnings = verify(wav, rate, kind)
    assert outcome.decision and outcome.score > 0.93 and not warnings


@pytest.mark.parametrize("kind", ["wav24", "float", "flac"])
@pytest.mark.parametrize("decibels", [-50, -40, -20, -6, 0])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_level_is_not_silence(verify, spoken, kind, decibels, channels):
    wav = 1.9 * spoken[:, None].repeat(channels, 1) * 10 ** (decibels / 20)
    outcome, warnings = verify(wav, kind=kind)
    assert outcome.decision and outcome.score > 0.999 and not warnings


@pytest.mark.parametrize("decibels", [6, 20, 40])
def test_floats_over_full_scale(verify, spoken, decibels):
    outcome, warnings = verify(2 * spoken * 10 ** (decibels / 20), kind="float")
    assert outcome.decision and outcome.score > 0.999 and not warnings


@pytest.mark.parametrize("kind", ["wav16", "wav24", "float", "flac"])
@pytest.mark.parametrize("top", [0.1, 0.5, 1.0])
def test_clipping(verify, spoken, kind, top):
    wav = 6 * spoken
    _, warnings = verify(top * wav.clip(-1, 1), kind=kind)
    assert len(warnings) == 1 and warnings[0].startswith("clipped, ")


@pytest.mark.parametrize("kind", ["wav16", "flac", "mp3", "opus"])
@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("channels", [2, 3])
def test_channels_that_cancel(verify, spoken, kind, rate, channels):
    if channels > 2 and kind == "mp3":
        return
    signs = np.array([1.0, -1.0, 0.0][:channels])
    outcome, warnings = verify(resample(spoken, RATE, rate)[:, None] * signs, rate, kind)
    assert outcome.decision and outcome.score > 0.8
    assert [text for text in warnings if "cancel each other" in text]


@pytest.mark.parametrize("seconds", [5, 20, 70])
@pytest.mark.parametrize("level", [None, -60, -40])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_long_pauses(verify, spoken, seconds, level, rate):
    """Silence, or noise of a level in dBFS, before the speech and behind it."""
    noise = np.random.default_rng(0).normal(0, 1, seconds * rate)
    noise = noise * (0 if level is None else 10 ** (level / 20))
    half = len(noise) // 2
    wav = np.concatenate([noise[:half], resample(spoken, RATE, rate), noise[half:]])
    outcome, warnings = verify(wav, rate)
    assert outcome.decision and outcome.score > 0.85
    copy = outcome.utterances[1]
    assert copy.seconds == pytest.approx(seconds + len(spoken) / RATE, abs=0.01)
    assert copy.speech_seconds == pytest.approx(outcome.utterances[0].speech_seconds, abs=0.8)
    if seconds >= 20:
        assert warnings == [f"little speech, {copy.speech_seconds:.3g} s of speech in {copy.seconds:.4g} s"]


@pytest.mark.parametrize("codec", ["ALAW", "ULAW", "GSM610", "PCM_16", "MS_ADPCM"])
def test_telephone(model, spoken, tmp_path, codec):
    soundfile.write(tmp_path / "wide.wav", spoken, RATE)
    soundfile.write(tmp_path / "a.wav", resample(spoken, RATE, 8000), 8000, subtype=codec)
    outcome = model.verify_files(tmp_path / "wide.wav", tmp_path / "a.wav")
    assert outcome.score > 0.6
    assert [text.split(": ")[1][:23] for text in outcome.warnings] == ["narrow band (telephone)"]
