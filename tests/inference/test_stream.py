"""Verification while somebody speaks, against the same audio as a file."""

import json
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion
from speechbrain_bccmt.scoring.sequential import SequentialTest
from speechbrain_bccmt.voiceprints.records import EnrolledUtterance
from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.tiny_hub_folder import write_hub_folder

RATE = 16000


@pytest.fixture(scope="module")
def model():
    return SpeakerVerification.from_hparams(run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def people(speech_data):
    """Five utterances of each of two speakers, joined, and another of each: (samples,) at 16 kHz."""
    folders = sorted((speech_data / "speechocean762" / "wav").iterdir())[5:25:10]
    wavs = [[read_mono(path, RATE) for path in sorted(folder.rglob("*.*"))[:6]] for folder in folders]
    return [(np.concatenate(some[:5]), some[5]) for some in wavs]


def feed(stream, wav, sizes):
    states, place, index = [], 0, 0
    while place < len(wav):
        states.append(stream.feed(wav[place : place + sizes[index % len(sizes)]]))
        place, index = place + sizes[index % len(sizes)], index + 1
    return states


def likeness(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize("rate", [16000, 8000, 44100, 48000])
@pytest.mark.parametrize("kind", ["float32", "int16", "torch", "stereo"])
def test_the_end_is_that_of_the_file(model, people, tmp_path, rate, kind):
    wav = resample(people[0][0][: 8 * RATE], RATE, rate)
    if kind == "int16":
        wav = (wav * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", wav, rate, subtype="PCM_16" if kind == "int16" else "FLOAT")
    given = {"torch": torch.from_numpy(wav), "stereo": np.stack([wav, wav], axis=1)}.get(kind, wav)
    stream = model.stream(np.ones(192), rate)
    feed(stream, given, [1, 0, 700, rate // 10, 3 * rate])
    found, expected = stream.finish(), model.embed_file(tmp_path / "a.wav")
    assert likeness(found.embedding, expected.embedding) > 0.99999
    assert found.speech_seconds == pytest.approx(expected.speech_seconds, abs=1e-3)
    assert found.seconds == pytest.approx(expected.seconds, abs=1e-3)
    assert stream.state.speech_seconds == pytest.approx(found.speech_seconds)
    assert [text.split(": ")[1] for text in found.warnings] == [t.split(": ")[1] for t in expected.warnings]


@pytest.mark.usefixtures("detector")
def test_the_end_of_a_longer_one(model, people, tmp_path):
    """Blocks of 30 s; with pauses, and two voices that take turns."""
    pause = np.zeros(4 * RATE, np.float32)
    wav = np.concatenate([part for _ in range(2) for part in (people[0][0], pause, people[1][0])])
    soundfile.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")
    stream = model.stream(np.ones(192))
    feed(stream, wav, [4000])
    found, expected = stream.finish(), model.embed_file(tmp_path / "a.wav")
    assert len(wav) > 60 * RATE and found.speech_seconds == pytest.approx(expected.speech_seconds, abs=1e-3)
    assert likeness(found.embedding, expected.embedding) > 0.99999


@pytest.mark.usefixtures("detector")
def test_a_decision_comes_while_they_speak(model, people):
    (same, enrolled), (other, _) = people
    for wav, decision in ((same, True), (other, False)):
        stream = model.stream(model.embed(enrolled), error=0.1)
        states = feed(stream, wav, [1600])
        assert states[0].decision is None and np.isnan(states[0].score)
        decided = [state for state in states if state.decision is not None]
        assert decided and {state.decision for state in decided} == {decision}
        assert {state.decided_after for state in decided} == {decided[0].decided_after}
        assert 1 <= decided[0].decided_after < 10
        speech = [state.speech_seconds for state in states]
        assert speech[-1] > 8 and np.diff(speech).min() > -1
        assert states[-1].seconds == pytest.approx(len(wav) / RATE)


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize("noise", ["felix/rain.ogg", "picovoice/kitchen.ogg"])
def test_what_is_told_meanwhile_is_nearly_what_is_told_in_the_end(model, people, speech_data, noise):
    """Noise before and after speech, 40 dB below it; the detector knows the speech level only once it has arrived."""
    wav = people[0][0][: 6 * RATE]
    added = np.resize(read_mono(speech_data / "noise" / noise, RATE), 8 * RATE)
    added = added * (0.01 * wav.std() / added.std())
    stream = model.stream(np.ones(192))
    feed(stream, np.concatenate([added, wav, added]).astype(np.float32), [800])
    before = stream.state
    utterance = stream.finish()
    assert before.speech_seconds == pytest.approx(utterance.speech_seconds, abs=0.5)
    assert stream.state.score == pytest.approx(before.score, abs=0.1) and utterance.speech_seconds < 7.5


@pytest.mark.usefixtures("detector")
def test_silence_is_never_decided(model):
    stream = model.stream(np.ones(192))
    for _ in range(50):
        state = stream.feed(np.zeros(16000, np.int16))
    assert state.speech_seconds == 0 and state.decision is None and np.isnan(state.score)
    assert stream.finish().speech_seconds == 0 and stream.state.decision is None
    assert "no speech" in stream.finish().warnings[0]


def test_memory_does_not_grow(model, people, monkeypatch):
    """With a trivial embedding, to measure only what is kept from minute to minute."""
    monkeypatch.setattr(model, "embed_waveform", lambda wav: np.full(192, wav.std(), np.float32))
    stream, wav = model.stream(np.ones(192)), people[0][0]
    held = []
    tracemalloc.start()
    for _ in range(12):
        feed(stream, wav, [16000])
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert stream.state.seconds > 200
    assert max(held[6:]) < 1.1 * max(held[:6]) and max(held) < 30e6


def test_whom_it_may_be(model, people, tmp_path):
    for number, (_, wav) in enumerate(people):
        soundfile.write(tmp_path / f"{number}.wav", wav, RATE)
    paths = [tmp_path / "0.wav", str(tmp_path / "1.wav")]
    utterances = [model.embed_file(path) for path in paths]
    prints = Voiceprints(tmp_path / "store", model.fingerprint)
    prints.enroll("ada", [one.embedding for one in utterances], [one.speech_seconds for one in utterances])
    embeddings = np.stack([one.embedding for one in utterances])
    claims = [
        paths,
        tuple(paths),
        utterances,
        prints.reference("ada"),
        embeddings,
        torch.from_numpy(embeddings),
    ]
    streams = [model.stream(claim) for claim in claims] + [model.stream(list(embeddings))]
    for stream in streams:
        feed(stream, people[0][0][: 3 * RATE], [8000])
    scores = [stream.state.score for stream in streams]
    assert scores == pytest.approx([scores[0]] * 7, abs=1e-6)
    # Where nobody knows how much speech was enrolled, the calibration is that of the median.
    ratios = [stream.state.llr for stream in streams]
    assert ratios[:4] == pytest.approx([ratios[0]] * 4) and ratios[4] != pytest.approx(ratios[0], abs=1e-3)
    assert model.stream(paths[0])._claim.direction == pytest.approx(model.stream(utterances[0])._claim.direction)


BAD_CHUNKS = {
    "NaN": (np.array([0.0, np.nan], np.float32), "NaN"),
    "infinite": (np.array([0.0, np.inf], np.float32), "NaN or infinite"),
    "complex": (np.zeros(3, complex), "samples are complex"),
    "64-bit integers": (np.zeros(3, np.int64), "samples are int64"),
    "text": (np.array(["a"]), "samples are"),
    "three axes": (np.zeros((2, 2, 2), np.float32), "shape"),
    "no axis": (np.float32(0.5), "shape"),
    "no channel": (np.zeros((5, 0), np.float32), "shape"),
    "another number of channels": (np.zeros((5, 2), np.float32), "2 channels"),
}


@pytest.mark.parametrize("what", BAD_CHUNKS)
def test_chunks_that_cannot_be_used(model, what):
    chunk, message = BAD_CHUNKS[what]
    stream = model.stream(np.ones(192))
    stream.feed(np.zeros(100, np.float32))
    with pytest.raises(ValueError, match=message):
        stream.feed(chunk)
    assert stream.feed(np.zeros(1500, np.float32)).seconds == pytest.approx(0.1)  # what came before stays


@pytest.mark.parametrize("rate", [0, -1, 999, 10**7, 16000.5, float("nan")])
def test_rates_that_cannot_be(model, rate):
    with pytest.raises(ValueError, match="sample_rate"):
        model.stream(np.ones(192), rate)


@pytest.mark.parametrize("error", [0, 1e-9, 0.5, 1, -1, float("nan")])
def test_promises_that_cannot_be_kept(model, error):
    with pytest.raises(ValueError, match="error rate"):
        model.stream(np.ones(192), error=error)


@pytest.mark.parametrize("claim", [np.zeros(192), np.full(192, np.nan), np.zeros((0, 192)), []])
def test_claims_of_nobody(model, claim):
    with pytest.raises(ValueError):
        model.stream(claim)


def test_an_end_is_an_end(model):
    stream = model.stream(np.ones(192))
    with pytest.raises(ValueError, match="too short"):
        stream.finish()
    stream.feed(np.zeros(16000, np.float32))
    assert stream.finish() is stream.finish()
    with pytest.raises(ValueError, match="has ended"):
        stream.feed(np.zeros(10, np.float32))


def test_a_model_without_calibration(tmp_path):
    model = SpeakerVerification.from_hparams(write_hub_folder(tmp_path / "hub"), run_opts={"device": "cpu"})
    with pytest.raises(ValueError, match="calibration"):
        model.stream(np.ones(16))


def test_thresholds_come_with_the_model(tmp_path):
    folder = write_hub_folder(tmp_path / "hub", Calibration(20.0, -6.0))
    model = SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})
    assert model.sequential == SequentialTest.wald()
    SequentialTest((0.1,), (1.0,), (-1.0,)).save(folder / "sequential.json")
    assert model.sequential.accept == (1.0,)
    values = json.loads((folder / "sequential.json").read_text())
    for key, value in (("errors", [0.1, 0.2]), ("accept", [-2.0]), ("reject", ["x"]), ("errors", 3)):
        (folder / "sequential.json").write_text(json.dumps(values | {key: value}))
        with pytest.raises(ValueError, match="sequential.json"):
            model.stream(np.ones(16))


@pytest.mark.usefixtures("detector")
def test_a_narrow_band_counts_as_in_a_file(model, people, tmp_path, monkeypatch):
    fusion = QualityFusion(("narrow",), (1.0,), (2.0,), ((0.0, 0.0, 1.0),), Calibration(20.0, -6.0))
    monkeypatch.setattr(model, "calibration", fusion)
    wide, phone = tmp_path / "wide.wav", tmp_path / "phone.wav"
    soundfile.write(wide, people[0][1], RATE)
    soundfile.write(phone, resample(people[0][0][: 8 * RATE], RATE, 8000), 8000)
    for claim, offset in ((wide, -4.0), (phone, -3.0)):  # one side is narrow; both are
        stream = model.stream(claim)
        feed(stream, read_mono(phone, RATE), [1600])
        assert stream.state.llr == pytest.approx(20 * stream.state.score + offset)
        stream.finish()
        outcome = model.verify_files(claim, phone)
        assert stream.state.llr == pytest.approx(outcome.llr, abs=1e-3)
        assert outcome.llr == pytest.approx(20 * outcome.score + offset)
    print_of_it = EnrolledUtterance("ada", model.embed_file(phone).embedding, 8.0, bandwidth=4000.0)
    prints = Voiceprints(tmp_path / "store", model.fingerprint)
    prints.add([print_of_it])
    assert model.stream(prints.reference("ada"))._claim.quality["narrow"] == 1
