"""Voice activity detection on real speech: what is not speech has no part in an embedding."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_bccmt.audio import recording as audio
from speechbrain_bccmt.audio.recording import Chunk, Recording, read_mono
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.audio.silero import speech_probabilities, speech_stretches
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
    return [0.5 * wav / np.abs(wav).max() for wav in wavs]


def noise(kind, seconds, level, speech_data):
    """Make or read something that nobody says, of a level in dBFS."""
    size, rng = round(seconds * RATE), np.random.default_rng(0)
    if kind == "digital silence":
        return np.zeros(size, np.float32)
    if kind == "hiss":
        wav = rng.normal(0, 1, size).astype(np.float32)
    elif kind == "hum":
        time = np.arange(size, dtype=np.float32) / RATE
        wav = sum(np.sin(2 * np.pi * hertz * time) / hertz for hertz in (50, 100, 150))
    elif kind == "rain":
        wav = read_mono(speech_data / "noise" / "felix" / "rain.ogg", RATE)
    else:
        wav = read_mono(speech_data / "noise" / "picovoice" / "kitchen.ogg", RATE)
    wav = np.resize(wav, size)
    return wav * 10 ** (level / 20) / np.sqrt(np.square(wav).mean())


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
        soundfile.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")
        reference = model.embed(tmp_path / "a.wav")
        longer = np.concatenate([added, wav] if before else [wav, added])
        soundfile.write(tmp_path / "b.wav", longer, RATE, subtype="FLOAT")
        assert likeness(model, tmp_path / "b.wav", reference) > 0.9
        utterance = model.embed_file(tmp_path / "b.wav")
        assert utterance.seconds == pytest.approx(20 + len(wav) / RATE)
        assert utterance.speech_seconds <= len(wav) / RATE + 0.5
        seconds = f"{utterance.speech_seconds:.3g} s of speech in {utterance.seconds:.4g} s"
        short = utterance.speech_seconds < 0.2 * utterance.seconds
        assert (f"little speech, {seconds}" in " ".join(utterance.warnings)) == short


def test_it_can_be_left_off(tmp_path, model, spoken):
    soundfile.write(
        tmp_path / "a.wav", np.concatenate([np.zeros(8000), spoken[0]]), RATE, subtype="FLOAT"
    )
    whole = model.embed(read_mono(tmp_path / "a.wav", RATE))
    for found in (
        model.embed(tmp_path / "a.wav", vad=False),
        SpeakerVerification.from_hparams(vad=False).embed(tmp_path / "a.wav"),
    ):
        assert torch.allclose(found, whole, atol=1e-6)
    assert not torch.allclose(model.embed(tmp_path / "a.wav"), whole, atol=1e-2)


def test_speech_in_a_long_recording(tmp_path, model, spoken, monkeypatch):
    """Two words an hour apart are one utterance; only speech longer than a chunk is cut."""
    wav = spoken[0]
    pause = np.random.default_rng(0).normal(0, 1e-3, 70 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate([wav, pause, wav]), RATE, subtype="FLOAT")
    recording = Recording.open(tmp_path / "a.wav")
    (chunk,) = keep_speech(recording.chunks(RATE), RATE)
    assert chunk.seconds == pytest.approx(recording.seconds)
    assert chunk.audible_seconds == len(chunk.wav) / RATE < 2 * len(wav) / RATE + 0.5
    monkeypatch.setattr(audio, "MAX_CHUNK_SECONDS", 1.0)
    chunks = list(keep_speech(iter([Chunk.from_waveform(np.concatenate([wav] * 4), RATE)]), RATE))
    assert len(chunks) > 3 and max(len(chunk.wav) for chunk in chunks) <= RATE
    assert sum(chunk.seconds for chunk in chunks) == pytest.approx(4 * len(wav) / RATE)
    assert np.concatenate([chunk.wav for chunk in chunks]).size == sum(len(chunk.wav) for chunk in chunks)


def test_memory_does_not_grow(spoken):
    """Audio waiting to be yielded is bounded by two chunks."""
    wav = np.concatenate([spoken[0]] * 10)[: 30 * RATE]
    held = []

    def chunks():
        for _ in range(12):
            yield Chunk.from_waveform(wav, RATE)

    for chunk in keep_speech(chunks(), RATE):
        held.append(len(chunk.wav))
        assert len(chunk.wav) <= audio.MAX_CHUNK_SECONDS * RATE
        held_for_it = chunk.wav if chunk.wav.base is None else chunk.wav.base
        assert held_for_it.nbytes <= 4 * 4 * audio.MAX_CHUNK_SECONDS * RATE
    assert len(held) > 5


@pytest.mark.parametrize("codec", ["ALAW", "ULAW", "GSM610", "PCM_16"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_telephone_is_told(tmp_path, model, spoken, codec, rate):
    """Also if its 8 kHz were resampled to a higher rate."""
    for wav in spoken:
        soundfile.write(tmp_path / "wide.wav", resample(wav, RATE, 44100), 44100)
        assert not model.embed_file(tmp_path / "wide.wav").warnings
        soundfile.write(tmp_path / "a.wav", resample(wav, RATE, 8000), 8000, subtype=codec)
        if rate > 8000:
            soundfile.write(tmp_path / "a.wav", read_mono(tmp_path / "a.wav", rate), rate)
        for vad in (True, False):
            (warning,) = model.embed_file(tmp_path / "a.wav", vad).warnings
            assert "a.wav: narrow band (telephone), nothing above " in warning


def test_noise_is_nobody(tmp_path, model, spoken):
    soundfile.write(tmp_path / "noise.wav", voice(3.0), RATE)
    soundfile.write(tmp_path / "a.wav", spoken[0], RATE)
    verdict = model.verify_files(tmp_path / "noise.wav", tmp_path / "noise.wav")
    assert verdict.score > 0.99 and not verdict.decision
    assert [text.split(": ")[1] for text in verdict.warnings] == ["no speech in its 3 s"]
    # On a side that also has speech, noise has no part in the score.
    both = model.verify_files([tmp_path / "a.wav", tmp_path / "noise.wav"], tmp_path / "a.wav")
    assert both.score == pytest.approx(1.0) and both.decision


def test_it_is_what_silero_vad_finds(spoken):
    """On real speech with pauses, and on probabilities of every kind."""
    import silero_vad
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    pause = np.zeros(RATE, np.float32)
    wav = np.concatenate([part for one in spoken for part in (one, pause)] * 4)
    theirs = silero_vad.load_silero_vad(sequence=True).audio_forward(wav)
    assert np.array_equal(speech_probabilities(wav), theirs)
    rng = np.random.default_rng(0)
    for number in range(300):
        probabilities = theirs if number == 0 else np.repeat(rng.random(rng.integers(1, 60)), rng.integers(1, 9))
        samples = len(probabilities) * 512 - int(rng.integers(0, 511))
        shortest, pause, padding = rng.choice([0, 30, 100, 400, 800], 3).tolist()
        expected = get_speech_timestamps_from_probs(
            probabilities.tolist(),
            min_speech_duration_ms=shortest,
            min_silence_duration_ms=pause,
            speech_pad_ms=padding,
            audio_length_samples=samples,
        )
        found = speech_stretches(probabilities, samples, 16 * shortest, 16 * pause, 16 * padding)
        assert found == [(part["start"], part["end"]) for part in expected]
