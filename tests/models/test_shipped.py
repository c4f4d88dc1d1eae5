"""The model that comes with the package: whole, the default everywhere, and good on real speech."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.models import DEFAULT, resolve_model, shipped_models
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion, load_calibration

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(resolve_model(DEFAULT))
FILES = {
    "NOTICE",
    "README.md",
    "calibration.json",
    "calibration_centred.json",
    "config.json",
    "embedding_model.safetensors",
    "open_set.json",
    "sequential.json",
    "waveform.onnx",
}


def run(*arguments):
    return CliRunner().invoke(cli.main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def voices(speech_data):
    """Two utterances each of two test speakers, whom the model never heard."""
    lines = (speech_data / "speechocean762" / "meta" / "veri_test.txt").read_text().splitlines()
    pairs = {line.split()[0]: line.split()[1:] for line in reversed(lines)}
    wav = speech_data / "speechocean762" / "wav"
    return {label: [wav / name for name in names] for label, names in pairs.items()}


def test_it_is_whole_small_and_unchanged():
    assert {path.name for path in FOLDER.iterdir()} == FILES
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["parameters"] == 271436
    for name, digest in config["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3e6
    assert config["threshold"] == pytest.approx(load_calibration(FOLDER / "calibration.json").at().threshold)


def test_everybody_whose_speech_or_model_it_learnt_from_is_named():
    notice = (FOLDER / "NOTICE").read_text()
    for name in (
        "3D-Speaker",
        "speechocean762",
        "Arabic Speech Commands",
        "LibriSpeech",
        "SMC Malayalam",
        "Google Speech Commands",
        "Common Voice",
        "CMU AN4",
        "Picovoice",
        "Mycroft",
    ):
        assert name in notice, name


def test_it_is_the_default(voices):
    model = SpeakerVerification.from_hparams()
    assert model.source == "tiny" and isinstance(model.calibration, QualityFusion)
    same, different = (model.verify_files(*voices[label]) for label in "10")
    assert same.score > different.score
    result = run("verify", *voices["1"], "--json")
    assert json.loads(result.stdout)["score"] == pytest.approx(float(same.score), abs=1e-5)
    assert json.loads(result.stdout)["threshold"] == pytest.approx(same.threshold, abs=1e-5)


def test_a_name_is_the_shipped_model_and_a_path_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert load_speaker_model("tiny").source == "tiny"
    with pytest.raises(FileNotFoundError, match="no model in './tiny'"):
        load_speaker_model("./tiny")
    with pytest.raises(FileNotFoundError, match=r"nor a shipped model \(tiny\)"):
        load_speaker_model("tinny")


def test_it_is_listed():
    result = run("models")
    assert result.exit_code == 0 and result.stdout.startswith("tiny (default): 271.44 K parameters")
    (entry,) = json.loads(run("models", "--json").stdout)
    assert entry["name"] == "tiny" and entry["folder"] == str(FOLDER) and shipped_models() == ["tiny"]


def test_its_graph_gives_the_same_embedding(voices):
    model, graph = SpeakerVerification.from_hparams(), GraphVerifier.load()
    wave = soundfile.read(voices["1"][0], dtype="float32")[0]
    found, expected = graph.embed(wave), model.embed(wave).numpy()
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99999
    assert graph.fingerprint == model.fingerprint and graph.calibration == model.calibration
    assert (graph.sample_rate, graph.min_seconds) == (model.sample_rate, model.min_seconds)


def test_more_speech_asks_for_another_threshold(voices):
    model = SpeakerVerification.from_hparams()
    utterances = [model.embed_file(path, vad=False) for path in voices["1"]]
    one = model.verify_utterances(utterances[:1], utterances[1:])
    several = model.verify_utterances([utterances[0]] * 3, utterances[1:])
    assert one.threshold != several.threshold
    assert one.decision == (one.score >= one.threshold)
    assert one.probability >= model.calibration.at().p_target or not one.decision
    wave, rate = soundfile.read(voices["1"][0], dtype="float32")
    batch = torch.from_numpy(wave)[None]
    outcome = model.verify_batch(batch, batch)
    same = model.verify_utterances(utterances[:1], utterances[:1])
    assert outcome.threshold.item() == pytest.approx(same.threshold, abs=1e-4)
    assert outcome.llr.item() == pytest.approx(same.llr, abs=1e-3)


def test_a_wheel_has_it(tmp_path):
    """Built as for publication, and loaded from the wheel alone."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "speechbrain_bccmt", source / "speechbrain_bccmt")
    shutil.copy(ROOT / "setup.py", source)
    shutil.copy(ROOT / "pyproject.toml", source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    assert {path.name for path in (unpacked / "speechbrain_bccmt" / "models" / "tiny").iterdir()} == FILES
    program = (
        "import speechbrain_bccmt.inference as i; m = i.SpeakerVerification.from_hparams(); "
        "print(m.threshold, i.__file__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=unpacked, capture_output=True, text=True, check=True
    )
    assert str(unpacked) in found.stdout


def test_fine_tuning_starts_from_it(tmp_path):
    """Its encoder is taken, and new speakers get a classifier of their own."""
    from speechbrain_bccmt.inference.parameters import load_parameters, read_labels

    assert read_labels("tiny", needed=False) is None
    model = load_speaker_model()
    for parameter in model.embedding_model.parameters():
        parameter.zero_()
    load_parameters({"embedding_model": model.embedding_model}, "tiny")
    assert sum(parameter.abs().sum() for parameter in model.embedding_model.parameters()) > 0


def test_one_s_own_threshold_makes_a_model_of_one_s_own(tmp_path):
    own = load_speaker_model()
    plain = run("export", "hub", tmp_path / "plain")
    assert plain.exit_code == 0 and "No threshold is shipped" not in plain.stderr
    copy = load_speaker_model(tmp_path / "plain")
    assert copy.calibration == own.calibration and not copy.others
    loose = replace(own.calibration, calibration=replace(own.calibration.calibration, p_target=0.5))
    loose.save(tmp_path / "loose.json")
    result = run("export", "hub", tmp_path / "mine", "--calibration", tmp_path / "loose.json")
    assert result.exit_code == 0
    mine = SpeakerVerification.from_hparams(tmp_path / "mine")
    assert mine.calibration == loose and mine.threshold < own.calibration.at().threshold
