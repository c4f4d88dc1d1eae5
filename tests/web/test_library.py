"""The library of the page, run by Node.js, against the Python package: same embeddings, same decisions."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from speechbrain_bccmt.attention.clip_attention import attend_to_clip
from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.inference.results import EmbeddedUtterance
from speechbrain_bccmt.models import resolve_model
from speechbrain_bccmt.scoring.open_set import OpenSet
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion, load_calibration
from speechbrain_bccmt.voiceprints.open_set import identify_open_set
from speechbrain_bccmt.voiceprints.records import EnrolledUtterance
from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.voices import CALIBRATION, voice
from tests.web.serving import serve

SHIPPED = Path(resolve_model("tiny")) / "calibration.json"


@pytest.fixture
def run(web, tmp_path):
    """Run a script that makes `result` of `input`, with the library as `bccmt`."""

    def run(script: str, **values):
        (tmp_path / "input.json").write_text(json.dumps(values))
        head = (
            'import * as bccmt from "./dist/index.js"; import fs from "node:fs"; import zlib from "node:zlib";'
            "const input = JSON.parse(fs.readFileSync(process.argv[1])); let result;"
        )
        tail = "; fs.writeFileSync(process.argv[2], JSON.stringify(result))"
        command = ["node", "--input-type=module", "-e", head + script + tail]
        files = [str(tmp_path / "input.json"), str(tmp_path / "output.json")]
        done = subprocess.run([*command, *files], cwd=web, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "output.json").read_text())

    return run


def cosine(one, other):
    one, other = (np.asarray(vector, dtype=np.float64) for vector in (one, other))
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize("kind", ["shipped", "plain"])
def test_calibrations_agree(run, tmp_path, kind):
    if kind == "shipped":
        calibration, content = load_calibration(SHIPPED), json.loads(SHIPPED.read_text())
        assert isinstance(calibration, QualityFusion)
    else:
        calibration = CALIBRATION
        calibration.save(tmp_path / "calibration.json")
        content = json.loads((tmp_path / "calibration.json").read_text())
    rng = np.random.default_rng(0)
    sides = [
        side_quality([seconds / count] * count, rng.uniform(3e3, 8e3, count))
        for seconds, count in zip(10 ** rng.uniform(-2, 3, 400), rng.integers(1, 12, 400), strict=True)
    ]
    trials = list(zip(rng.uniform(-1, 1, 200).tolist(), sides[::2], sides[1::2], strict=True))
    trials.append((0.4, None, None))
    found = run(
        """
        const calibration = bccmt.readCalibration(input.calibration);
        result = input.trials.map(([score, enrolment, test]) => {
          const at = calibration.at(enrolment ?? undefined, test ?? undefined);
          return [at.llr(score), at.probability(score), at.threshold];
        })""",
        calibration=content,
        trials=trials,
    )
    expected = []
    for score, enrolment, test in trials:
        at = calibration.at(enrolment, test)
        expected.append([float(at.llr(score)), float(at.probability(score)), at.threshold])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def utterances(rng, speaker, count):
    return [
        EmbeddedUtterance("", (speaker + rng.normal(size=32)).astype(np.float32), seconds, audible, bandwidth=band)
        for seconds, audible, band in rng.uniform([0.2, 0.2, 3e3], [8, 8, 8e3], (count, 3))
    ]


def as_json(side):
    return [
        {
            "embedding": utterance.embedding.tolist(),
            "speechSeconds": utterance.speech_seconds,
            "bandwidth": utterance.bandwidth,
        }
        for utterance in side
    ]


READ = """
const read = (side) => side.map((one) => ({...one, embedding: Float32Array.from(one.embedding), warnings: []}));
const calibration = bccmt.readCalibration(input.calibration);
"""


OPEN_MODEL = """
const file = (name) => fs.readFileSync(`${input.page}/${name}`);
const config = JSON.parse(file("config.json"));
const unpack = {brotli: zlib.brotliDecompressSync, gzip: zlib.gunzipSync};
const get = ({file: name}) => unpack[name.split(".").pop()](file(name));
const model = await bccmt.createModel({
  config, graph: get(config.packed.model), runtime: get(config.packed.runtime),
  speech: get(config.packed.speech), calibration: JSON.parse(file(config.calibration)),
});
"""


def test_verifications_agree(run):
    model = SpeakerVerification.from_hparams()
    rng = np.random.default_rng(1)
    speakers = rng.normal(size=(6, 32))
    sides = [utterances(rng, speakers[n % 6], 1 + n % 4) for n in range(24)]
    sides[5] = [EmbeddedUtterance("", sides[5][0].embedding, 3.0, 0.0, bandwidth=8000.0)]  # silent
    pairs = [(sides[i], sides[j]) for i in range(24) for j in range(i, 24)]
    found = run(
        READ + "result = input.pairs.map(([x, y]) => bccmt.verify(read(x), read(y), calibration))",
        calibration=json.loads(SHIPPED.read_text()),
        pairs=[[as_json(x), as_json(y)] for x, y in pairs],
    )
    decisions = set()
    for outcome, (x, y) in zip(found, pairs, strict=True):
        expected = model.verify_utterances(x, y)
        assert outcome["score"] == pytest.approx(float(expected.score), abs=1e-6)
        assert outcome["threshold"] == pytest.approx(expected.threshold, abs=1e-9)
        assert outcome["same"] is bool(expected.decision)
        if np.isnan(expected.probability):
            assert outcome["probability"] is None and outcome["llr"] is None
        else:
            assert outcome["probability"] == pytest.approx(expected.probability, abs=1e-5)
        decisions.add(outcome["same"])
    assert decisions == {True, False}


@pytest.mark.parametrize("kind", ["shipped", "bound"])
def test_thresholds_of_identification_agree(run, kind):
    path = SHIPPED.with_name("open_set.json")
    expected = OpenSet.load(path) if kind == "shipped" else OpenSet.bound()
    rng = np.random.default_rng(3)
    asked = [(int(10**power), error) for power in rng.uniform(0, 5, 40) for error in (0.01, 0.03, 0.05, 0.3)]
    found = run(
        """
        const open = input.content ? bccmt.readOpenSet(input.content) : bccmt.OpenSet.bound();
        result = input.asked.map(([names, error]) => open.threshold(names, error))""",
        content=json.loads(path.read_text()) if kind == "shipped" else None,
        asked=asked,
    )
    np.testing.assert_allclose(found, [expected.threshold(*one) for one in asked], rtol=1e-12)


def test_identifications_agree(run, tmp_path):
    rng = np.random.default_rng(2)
    speakers = {f"speaker {n}": rng.normal(size=32) for n in range(20)}
    enrolled = {name: utterances(rng, centre, 3) for name, centre in speakers.items()}
    probes = [utterances(rng, centre, 1)[0] for centre in [*speakers.values(), *rng.normal(size=(20, 32))]]
    prints = Voiceprints(tmp_path / "voices.sqlite", "0123456789abcdef")
    prints.add(
        EnrolledUtterance(name, one.embedding, one.speech_seconds, bandwidth=one.bandwidth)
        for name, side in enrolled.items()
        for one in side
    )
    model = SpeakerVerification.from_hparams()
    probes.append(replace(probes[0], speech_seconds=0.0))  # silent
    qualities = [side_quality([one.speech_seconds], [one.bandwidth]) for one in probes[:-1]] + [None]
    expected = [
        identify_open_set(prints, probe.embedding, known, model.calibration, model.open_set, n_best=20)
        for probe, known in zip(probes, qualities, strict=True)
    ]
    own = prints.identify([probe.embedding for probe in probes[:-1]], 0.6, n_best=20)
    found, by_score = run(
        READ
        + """
        const open = bccmt.readOpenSet(input.open_set);
        const speakers = input.speakers.map(([name, side]) => ({name, utterances: read(side)}));
        const find = (threshold) => (probe) => bccmt.identify(speakers, probe, calibration, open, threshold);
        const probes = read(input.probes);
        result = [probes.map(find()), probes.slice(0, -1).map(find(0.6))]""",
        calibration=json.loads(SHIPPED.read_text()),
        open_set=json.loads(SHIPPED.with_name("open_set.json").read_text()),
        speakers=[[name, as_json(side)] for name, side in enrolled.items()],
        probes=as_json(probes),
    )
    assert [one["speaker"] for one in by_score] == [other.speaker for other in own]
    for one, other in zip(found, expected, strict=True):
        assert one["speaker"] == other.speaker
        assert one["threshold"] == pytest.approx(other.threshold, abs=1e-6)
        assert [c["name"] for c in one["candidates"]] == [c.name for c in other.candidates]
        scores = [c["score"] for c in one["candidates"]]
        np.testing.assert_allclose(scores, [c.score for c in other.candidates], atol=1e-6)
    assert {one["speaker"] is None for one in found} == {True, False}


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44101, 48000])
def test_resampling_agrees(run, rate):
    wav = voice(0.5, 3, rate).astype(np.float32)
    found = run(
        "result = [...bccmt.resample(Float32Array.from(input.wav), input.rate, 16000)]",
        wav=wav.tolist(),
        rate=rate,
    )
    factor = np.gcd(rate, 16000)
    expected = resample_poly(wav.astype(np.float64), 16000 // factor, rate // factor)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_recordings_embed_as_in_python(run, tmp_path, exported, speech_data, detector):
    speech = sorted(speech_data.glob("speechocean762/wav/*/*/*"))[::500][:6]
    speech += sorted(speech_data.glob("google_speech_commands/wav/*/*/*"))[::3000][:3]
    read = [soundfile.read(path, dtype="float32", always_2d=True)[0] for path in speech]
    one, other = read[0], read[1]
    long = np.concatenate(
        [np.tile(one, (12, 1)), np.zeros((40 * 16000, 1), np.float32), np.tile(other, (9, 1))]
    )
    quiet = np.zeros((20000, 1), np.float32)
    pauses = np.concatenate([quiet, one, quiet, other, quiet])
    noisy = pauses + np.random.default_rng(1).normal(0, one.std() / 10**0.5, pauses.shape)  # at some 10 dB
    cases = [(f"{n}.wav", wav, 16000) for n, wav in enumerate(read)]
    cases += [
        ("stereo.wav", np.hstack([one, 0.5 * one]), 16000),
        ("inverted.wav", np.hstack([one, -0.9 * one]), 16000),
        ("cd.wav", resample_poly(one, 441, 160), 44100),
        ("telephone.wav", resample_poly(one, 1, 2), 8000),
        ("clipped.wav", (one / np.abs(one).max() * 8).clip(-1, 1), 16000),
        ("mostly silent.wav", np.concatenate([one, np.zeros((16000 * 20, 1), np.float32)]), 16000),
        ("silent.wav", np.zeros((16000, 1), np.float32), 16000),
        ("long.wav", long, 16000),
        ("soft.wav", 1e-3 * np.concatenate([one, np.zeros((16000 * 3, 1), np.float32), other]), 16000),
        ("noise.wav", np.random.default_rng(0).normal(0, 0.1, (32000, 1)), 16000),
        ("hum.wav", pauses + 0.05 * np.sin(2 * np.pi * 50 * np.arange(len(pauses))[:, None] / 16000), 16000),
        ("pauses.wav", resample_poly(pauses, 441, 160), 44100),
        ("noisy.wav", noisy, 16000),
    ]
    verification = SpeakerVerification.from_hparams("tiny")
    for name, wav, rate in cases:
        soundfile.write(tmp_path / name, wav, rate, subtype="FLOAT")
        wav.T.astype("<f4").tofile(tmp_path / f"{name}.raw")
    found = run(
        OPEN_MODEL
        + """
        result = [];
        for (const {name, rate, channels} of input.cases) {
          const all = new Float32Array(new Uint8Array(fs.readFileSync(`${input.folder}/${name}.raw`)).buffer);
          const size = all.length / channels;
          const parts = Array.from({length: channels}, (_, n) => all.subarray(n * size, (n + 1) * size));
          result.push([await model.embed(parts, rate), await model.embed(parts, rate, false)]);
        }
        for (const one of result.flat()) one.embedding = [...one.embedding];
        for (const [wav, rate] of [[new Float32Array(100), 16000], [new Float32Array(16000).fill(NaN), 16000]]) {
          result.push(await model.embed(wav, rate).then(() => "embedded", (error) => error.message));
        }""",
        page=str(exported),
        folder=str(tmp_path),
        cases=[{"name": name, "rate": rate, "channels": wav.shape[1]} for name, wav, rate in cases],
    )
    *found, short, broken = found
    for (name, _, _), both in zip(cases, found, strict=True):
        for utterance, vad in zip(both, (True, False), strict=True):
            expected = verification.embed_file(tmp_path / name, vad)
            assert cosine(utterance["embedding"], expected.embedding) > 0.99999, (name, vad)
            assert utterance["seconds"] == pytest.approx(expected.seconds)
            assert utterance["speechSeconds"] == pytest.approx(expected.speech_seconds, abs=1e-4), (name, vad)
            assert utterance["bandwidth"] == expected.bandwidth, (name, vad)
            warnings = [text.removeprefix(f"{tmp_path / name}: ") for text in expected.warnings]
            assert utterance["warnings"] == warnings, (name, vad)
    above = {name: both[0]["aboveNoise"] for (name, _, _), both in zip(cases, found, strict=True)}
    assert 6 < above["noisy.wav"] < 14 and above["pauses.wav"] > 25 and above["noise.wav"] is None
    told = {text.split()[0] for speech, _ in found for text in speech["warnings"]}
    assert told >= {"no", "little", "clipped,", "a", "narrow", "its"}, told
    assert "0.00625 s is too short" in short and broken == "holds NaN or infinite samples"


def test_attention_is_that_of_the_command(run, tmp_path, exported, speech_data, detector):
    paths = sorted(speech_data.glob("speechocean762/wav/*/*/*"))[:40:13]
    read = [soundfile.read(path, dtype="float32")[0] for path in paths]
    cases = [read[0], np.concatenate([np.zeros(8000, np.float32), *read, *read])]  # the second above 10 s
    for number, wav in enumerate(cases):
        soundfile.write(tmp_path / f"{number}.wav", wav, 16000, subtype="FLOAT")
        wav.astype("<f4").tofile(tmp_path / f"{number}.raw")
    found = run(
        OPEN_MODEL
        + """
        result = [];
        for (let number = 0; number < input.cases; number++) {
          const bytes = new Uint8Array(fs.readFileSync(`${input.folder}/${number}.raw`));
          const {seconds, ...arrays} = await model.attend(new Float32Array(bytes.buffer), 16000);
          const plain = Object.entries(arrays).map(([name, {values, shape}]) => [name, {values: [...values], shape}]);
          result.push({seconds, ...Object.fromEntries(plain)});
        }""",
        page=str(exported),
        folder=str(tmp_path),
        cases=len(cases),
    )
    verification = SpeakerVerification.from_hparams("tiny")
    for number, one in enumerate(found):
        expected = attend_to_clip(verification, tmp_path / f"{number}.wav")
        assert one["seconds"] == pytest.approx(expected.seconds)
        assert one["features"]["shape"] == list(expected.features.shape)
        features = np.reshape(one["features"]["values"], one["features"]["shape"])
        assert np.abs(features - expected.features.numpy()).mean() < 0.01
        (weights,) = expected.maps[0].numpy()
        assert one["weights"]["shape"] == list(weights.shape)
        np.testing.assert_allclose(np.reshape(one["weights"]["values"], weights.shape), weights, atol=2e-3)
        assert weights.max() > 0.1  # or the comparison would show little
    config = json.loads((exported / "config.json").read_text())["attention"]
    assert config["block"] == expected.blocks[0] and config["seconds"] == found[1]["seconds"] == 10
    np.testing.assert_allclose(config["frequencies"], expected.frequencies)


def test_a_served_model_is_opened_by_its_address(run, exported):
    wav = voice(1.0).astype(np.float32)
    with serve(exported) as site:
        found = run(
            """
            const model = await bccmt.openModel(input.address);
            const one = await model.embed(Float32Array.from(input.wav), 16000, false);
            result = {embedding: [...one.embedding], ...model.verify([one], [one]), threshold: model.threshold};
            result.lost = await bccmt.openModel(`${input.address}gone/`).catch((error) => error.message);""",
            address=site.address,
            wav=wav.tolist(),
        )
    model = SpeakerVerification.from_hparams("tiny")
    assert cosine(found["embedding"], model.embed(wav)) > 0.99999  # which takes waveforms for speech
    assert found["threshold"] == pytest.approx(model.threshold)
    assert found["score"] == pytest.approx(1) and found["same"] is True
    assert found["lost"] == "config.json cannot be loaded: 404 File not found"


def test_units(web):
    """The library's and the page's own tests."""
    done = subprocess.run(["npm", "test"], cwd=web, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout or "fail 0" in done.stdout
