"""Voice activity detection on real speech: what is not speech has no part in an embedding."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_bccmt.audio import recording as audio
from speechbrain_bccmt.audio.recording import Chunk, Recording, read_mono, resample
from speechbrain_bccmt.audio.speech import find_speech, keep_speech
from speechbrain_bccmt.inference import SpeakerVerification
from tests.voices import voice

pytestmark = pytest.mark.usefixtures("detector")
RATE = 16000


@pytest.fixture(scope="module")
def model():
    return SpeakerVerification.from_hparams(run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def spoken(speech_data):
    """Utterances of three speakers, (samples,) each, at a peak of 0.5."""
    folders = sorted((speech_data / "speechocean762" / "wav").iterdir())[5:35:10]
    wavs = [read_mono(sorted(folder.rglob("*.*"))[4], RATE) for folder in folders]
    return [0.5 * wav / wav.abs().max() for wav in wavs]


def noise(kind, seconds, level, speech_data):
    """Make or read something that nobody says, of a level in dBFS."""
    size, rng = round(seconds * RATE), np.random.default_rng(0)
    if kind == "digital silence":
        return torch.zeros(size)
    if kind == "hiss":
        wav = torch.from_numpy(rng.normal(0, 1, size)).float()
    elif kind == "hum":
        time = torch.arange(size) / RATE
        wav = sum(torch.sin(2 * torch.pi * hertz * time) / hertz for hertz in (50, 100, 150))
    elif kind == "rain":
        wav = read_mono(speech_data / "noise" / "felix" / "rain.ogg", RATE)
    else:
        wav = read_mono(speech_data / "noise" / "picovoice" / "kitchen.ogg", RATE)
    wav = wav.repeat(1 + size // len(wav))[:size]
    return wav * 10 ** (level / 20) / wav.square().mean().sqrt()


def likeness(model, path, reference):
    embedding = torch.from_numpy(model.embed_file(path).embedding)
    return float(torch.cosine_similarity(embedding, reference, dim=0))


def test_speech_is_found_at_any_level_and_rate(spoken):
    for wav in spoken:
        stretches = find_speech(wav, RATE)
        found = sum(stop - start for start, stop in stretches)
        assert 0.4 * len(wav) < found <= len(wav)
        assert all(0 <= start < stop <= len(wav) for start, stop in stretches)
        for level in (1e-4, 3e-3, 30):
            assert find_speech(level * wav, RATE) == stretches
        for rate in (8000, 22050, 44100, 48000):
            other = find_speech(resample(wav, RATE, rate), rate)
            seconds = sum(stop - start for start, stop in other) / rate
            assert seconds == pytest.approx(found / RATE, abs=0.35)


@pytest.mark.parametrize("kind", ["digital silence", "hiss", "hum", "rain", "kitchen"])
@pytest.mark.parametrize("level", [-70, -40, -20])
def test_nobody_speaks(kind, level, speech_data):
    assert find_speech(noise(kind, 10, level, speech_data), RATE) == []


@pytest.mark.parametrize("kind", ["digital silence", "hiss", "hum", "rain", "kitchen"])
@pytest.mark.parametrize("level", [-60, -40])
@pytest.mark.parametrize("before", [True, False])
def test_what_is_added_changes_nothing(tmp_path, model, spoken, speech_data, kind, level, before):
    """Twenty seconds before or behind: without detection scores fall to 0.4."""
    added = noise(kind, 20, level, speech_data)
    for wav in spoken:
        soundfile.write(tmp_path / "a.wav", wav.numpy(), RATE, subtype="FLOAT")
        reference = model.embed(tmp_path / "a.wav")
        longer = torch.cat([added, wav] if before else [wav, added])
        soundfile.write(tmp_path / "b.wav", longer.numpy(), RATE, subtype="FLOAT")
        assert likeness(model, tmp_path / "b.wav", reference) > 0.9
        utterance = model.embed_file(tmp_path / "b.wav")
        assert utterance.seconds == pytest.approx(20 + len(wav) / RATE)
        assert utterance.speech_seconds <= len(wav) / RATE + 0.5
        seconds = f"{utterance.speech_seconds:.3g} s of speech in {utterance.seconds:.4g} s"
        short = utterance.speech_seconds < 0.2 * utterance.seconds
        assert (f"little speech, {seconds}" in " ".join(utterance.warnings)) == short


def test_it_can_be_left_off(tmp_path, model, spoken):
    soundfile.write(
        tmp_path / "a.wav", torch.cat([torch.zeros(8000), spoken[0]]).numpy(), RATE, subtype="FLOAT"
    )
    whole = model.embed(read_mono(tmp_path / "a.wav", RATE))
    for found in (
        model.embed(tmp_path / "a.wav", vad=False),
        SpeakerVerification.from_hparams(vad=False).embed(tmp_path / "a.wav"),
    ):
        assert torch.allclose(found, whole, atol=1e-6)
    assert not torch.allclose(model.embed(tmp_path / "a.wav"), whole, atol=1e-2)


def test_speech_in_a_long_recording(tmp_path, model, spoken, monkeypatch):
    """Two words an hour apart are one utterance; more speech than a chunk is cut where the whole is not."""
    wav = spoken[0]
    pause = 1e-3 * torch.randn(70 * RATE, generator=torch.Generator().manual_seed(0))
    soundfile.write(tmp_path / "a.wav", torch.cat([wav, pause, wav]).numpy(), RATE, subtype="FLOAT")
    recording = Recording.open(tmp_path / "a.wav")
    (chunk,) = keep_speech(recording.chunks(RATE), RATE)
    assert chunk.seconds == pytest.approx(recording.seconds)
    assert chunk.audible_seconds == len(chunk.wav) / RATE < 2 * len(wav) / RATE + 0.5
    monkeypatch.setattr(audio, "MAX_CHUNK_SECONDS", 1.0)
    chunks = list(keep_speech(iter([Chunk.from_waveform(torch.cat([wav] * 4), RATE)]), RATE))
    assert len(chunks) > 3 and max(len(chunk.wav) for chunk in chunks) <= RATE
    assert sum(chunk.seconds for chunk in chunks) == pytest.approx(4 * len(wav) / RATE)
    assert torch.cat([chunk.wav for chunk in chunks]).numel() == sum(len(chunk.wav) for chunk in chunks)


def test_memory_does_not_grow(spoken):
    """What waits to be given away is bounded by two chunks."""
    wav = torch.cat([spoken[0]] * 10)[: 30 * RATE]
    held = []

    def chunks():
        for _ in range(12):
            yield Chunk.from_waveform(wav, RATE)

    for chunk in keep_speech(chunks(), RATE):
        held.append(len(chunk.wav))
        assert len(chunk.wav) <= audio.MAX_CHUNK_SECONDS * RATE
        assert chunk.wav.untyped_storage().nbytes() <= 4 * 4 * audio.MAX_CHUNK_SECONDS * RATE
    assert len(held) > 5


@pytest.mark.parametrize("codec", ["ALAW", "ULAW", "GSM610", "PCM_16"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_telephone_is_told(tmp_path, model, spoken, codec, rate):
    """Also where its 8 kHz were resampled to more."""
    for wav in spoken:
        soundfile.write(tmp_path / "wide.wav", resample(wav, RATE, 44100).numpy(), 44100)
        assert not model.embed_file(tmp_path / "wide.wav").warnings
        soundfile.write(tmp_path / "a.wav", resample(wav, RATE, 8000).numpy(), 8000, subtype=codec)
        if rate > 8000:
            soundfile.write(tmp_path / "a.wav", read_mono(tmp_path / "a.wav", rate).numpy(), rate)
        for vad in (True, False):
            (warning,) = model.embed_file(tmp_path / "a.wav", vad).warnings
            assert "a.wav: narrow band (telephone), nothing above " in warning


def test_noise_is_nobody(tmp_path, model, spoken):
    soundfile.write(tmp_path / "noise.wav", voice(3.0), RATE)
    soundfile.write(tmp_path / "a.wav", spoken[0].numpy(), RATE)
    verdict = model.verify_files(tmp_path / "noise.wav", tmp_path / "noise.wav")
    assert verdict.score > 0.99 and not verdict.decision
    assert [text.split(": ")[1] for text in verdict.warnings] == ["no speech in its 3 s"]
    # Beside speech on its side it has no part in the score.
    both = model.verify_files([tmp_path / "a.wav", tmp_path / "noise.wav"], tmp_path / "a.wav")
    assert both.score == pytest.approx(1.0) and both.decision


def test_the_threads_of_others_are_left_alone():
    """Importing silero_vad would leave PyTorch with one."""
    program = (
        "import torch; torch.set_num_threads(2); from speechbrain_bccmt.audio.speech import find_speech; "
    )
    program += "find_speech(torch.randn(16000), 16000); print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
