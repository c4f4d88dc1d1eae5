"""Hub folders: written, loaded offline by both interfaces, and sent through the real client to a server of our own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from speechbrain.inference.speaker import SpeakerRecognition

from speechbrain_bccmt.commands.export import export
from speechbrain_bccmt.export.hub import export_hub, push_to_hub
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.inference.model_files import find_file
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.models import resolve_model
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.sequential import SequentialTest
from tests.export import hub_server

FILES = {
    "README.md", "calibration.json", "classifier.ckpt", "classifier.safetensors", "config.json", "embedding_model.ckpt",
    "embedding_model.safetensors", "example1.wav", "hyperparams.yaml", "label_encoder.ckpt", "label_encoder.txt",
    "waveform.onnx",
}  # fmt: skip


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, synthetic_speech):
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", synthetic_speech(24000, number).numpy(), 16000)
    return [folder / "0.wav", folder / "1.wav"]


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("scores") / "scores.txt"
    values = [(1, score) for score in rng.normal(0.7, 0.1, 200)] + [
        (0, score) for score in rng.normal(0.1, 0.1, 800)
    ]
    path.write_text("".join(f"a/{i} b/{i} {label} {score}\n" for i, (label, score) in enumerate(values)))
    return path


@pytest.fixture(scope="module")
def folder(training_folder, tmp_path_factory, recordings, scores):
    out = tmp_path_factory.mktemp("hub") / "model"
    options = [
        "--scores",
        scores,
        "--test-set",
        "made-up",
        "--data",
        "none",
        "--license",
        "cc0-1.0",
        "--language",
        "en",
    ]
    arguments = ["hub", out, "-m", training_folder, "--example", recordings[0], *options]
    result = CliRunner().invoke(export, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


@torch.no_grad()
def expected_embedding(training_folder, wav):
    model = load_speaker_model(training_folder)
    features = model.mean_var_norm(model.compute_features(wav), torch.ones(1))
    return model.embedding_model(features)


def test_folder_is_complete(folder, training_folder):
    assert {path.name for path in folder.iterdir()} == FILES
    text = (folder / "hyperparams.yaml").read_text()
    assert "paths" not in text and str(training_folder) not in text and "checkpointer" not in text
    config = json.loads((folder / "config.json").read_text())
    assert config["parameters"] == 271436 and config["speechbrain_interface"] == "SpeakerRecognition"
    calibration = Calibration.load(folder / "calibration.json")
    assert config["fingerprint"] == fingerprint(load_speaker_model(training_folder).modules)
    assert config["threshold"] == calibration.threshold and calibration.fitted_on == "made-up"
    for name in ("embedding_model", "classifier"):
        state = torch.load(folder / f"{name}.ckpt", weights_only=True)
        twin = load_file(folder / f"{name}.safetensors")
        assert state.keys() == twin.keys() and all(torch.equal(state[key], twin[key]) for key in state)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o644"}


def test_card(folder):
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name, card.data.language) == (
        "cc0-1.0",
        "speechbrain",
        ["en"],
    )
    assert {result.metric_type for result in card.data.eval_results} == {"eer", "min_dcf"}
    for words in (
        "271,436",
        "Intended use",
        "made-up",
        "Trained on: none (4 speakers)",
        "example1.wav",
        "these very",
    ):
        assert words in card.text, words


def test_nobodys_voice_is_published_unasked(training_folder, tmp_path):
    result = CliRunner().invoke(export, ["hub", str(tmp_path / "out"), "-m", str(training_folder)])
    assert result.exit_code == 0 and "no example clips: give two by --example" in result.stderr
    assert "## Example clips\n\nNone were given" in (tmp_path / "out" / "README.md").read_text()
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".wav", ".flac", ".ogg")]


def test_plain_speechbrain_loads_it(folder, training_folder, recordings, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)  # offline
    model = SpeakerRecognition.from_hparams(source=str(folder), run_opts={"device": "cpu"})
    wav = model.load_audio(str(recordings[0]))[None]
    expected = expected_embedding(training_folder, wav)
    assert torch.allclose(model.encode_batch(wav), expected, rtol=1e-4, atol=1e-5)
    assert model.verify_files(str(recordings[0]), str(recordings[0]))[0].item() == pytest.approx(1, abs=1e-5)
    # Of three classes a speaker, one for each speed, the one at the speaker's own speed is left, with its name.
    assert len(model.hparams.label_encoder) == 4
    _, _, index, names = model.classify_batch(wav)
    assert names == [["ann", "bob", "cid", "dora"][index.item()]]


def test_our_interface_loads_it(folder, training_folder, recordings, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    model = SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})
    assert model.threshold == Calibration.load(folder / "calibration.json").threshold
    wav = torch.from_numpy(soundfile.read(recordings[0], dtype="float32")[0])[None]
    expected = expected_embedding(training_folder, wav)[0, 0]
    assert torch.cosine_similarity(model.embed(recordings[0]), expected, dim=0) > 0.99999


CLIENT = """\
import sys, torch
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain_bccmt.inference.verification import SpeakerVerification
plain = SpeakerRecognition.from_hparams(source="lab/voices", run_opts={"device": "cpu"})
ours = SpeakerVerification.from_hparams("lab/voices", run_opts={"device": "cpu"})
wav = plain.load_audio(sys.argv[1])[None]
assert len(plain.hparams.label_encoder) == 4
print(torch.cosine_similarity(plain.encode_batch(wav)[0, 0], ours.embed(sys.argv[1]), dim=0).item(), ours.threshold)
"""


def run(arguments, **environment):
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=240
    )


def test_through_the_hub(training_folder, scores, recordings, tmp_path):
    push = [
        "-m",
        "speechbrain_bccmt.cli",
        "export",
        "hub",
        tmp_path / "out",
        "-m",
        training_folder,
        "--scores",
        scores,
    ]
    push += ["--push", "lab/voices", "--private", "--license", "cc0-1.0"]
    with hub_server.HubServer() as server:
        environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
        refused = run(push, HF_TOKEN="hf_wrong", **environment)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert "could not be uploaded to 'lab/voices'" in refused.stderr
        pushed = run([*push, "--overwrite"], HF_TOKEN=hub_server.TOKEN, **environment)
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.strip() == f"{server.address}/lab/voices/commit/{'0' * 40}"
        assert server.private["lab/voices"]
        local = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert {name: server.repositories["lab/voices"][name] for name in local} == local
        assert (
            "lab/voices" in local["README.md"].decode()
            and "lab/voices" not in local["hyperparams.yaml"].decode()
        )
        online = run(["-c", CLIENT, recordings[0]], **environment)
        assert online.returncode == 0, online.stderr
        assert any(
            "HEAD lab/voices/resolve/main/embedding_model.ckpt" in request for request in server.requests
        )
    offline = run(["-c", CLIENT, recordings[0]], HF_HUB_OFFLINE="1", **environment)
    assert offline.returncode == 0, offline.stderr
    cosine, threshold = map(float, offline.stdout.split()[-2:])
    assert cosine > 0.99999 and threshold == Calibration.load(tmp_path / "out" / "calibration.json").threshold
    assert online.stdout.split()[-2:] == offline.stdout.split()[-2:]


def test_what_was_fitted_on_the_calibration_goes_with_it(tmp_path, monkeypatch):
    shipped = resolve_model("tiny")
    export_hub("tiny", tmp_path / "same")
    for name in ("calibration.json", "calibration_centred.json", "sequential.json", "open_set.json"):
        assert json.loads((tmp_path / "same" / name).read_text()) == json.loads((shipped / name).read_text())
    model = GraphVerifier.load(tmp_path / "same")
    assert "speechocean762" in model.sequential.fitted_on and "speechocean762" in model.open_set.fitted_on
    export_hub("tiny", tmp_path / "same", Calibration(20.0, -6.0), overwrite=True)
    assert not (tmp_path / "same" / "sequential.json").exists()
    assert GraphVerifier.load(tmp_path / "same").sequential == SequentialTest.wald()
    # A model on the hub has them too.
    fetch = "speechbrain_bccmt.inference.model_files.fetch_from_hub"
    monkeypatch.setattr(fetch, lambda _, name: find_file(shipped, name))
    assert "speechocean762" in GraphVerifier.load("lab/voices").open_set.fitted_on


def test_mistakes_are_told(training_folder, folder, tmp_path, recordings):
    with pytest.raises(FileExistsError, match="not empty"):
        export_hub(training_folder, folder)
    with pytest.raises(FileNotFoundError, match="no model at"):
        export_hub(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nobody"):
        export_hub(training_folder, tmp_path / "out", examples=[tmp_path / "nobody.wav"])
    with pytest.raises(ValueError, match=r"\.txt is none of"):
        export_hub(
            training_folder, tmp_path / "out", examples=[training_folder / "save" / "label_encoder.txt"]
        )
    with pytest.raises(FileNotFoundError, match="not a hub folder"):
        push_to_hub(tmp_path, "a/b")
    with pytest.raises(ValueError, match="'a b' is no hub id"):
        push_to_hub(folder, "a b")
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_model_that_would_run_code_is_refused(training_folder, tmp_path):
    broken = tmp_path / "training"
    broken.mkdir()
    text = (training_folder / "hyperparams.yaml").read_text()
    assert "!apply:speechbrain_bccmt.bccmt_tiny" in text
    marker = tmp_path / "ran"
    code = text.replace("!apply:speechbrain_bccmt.bccmt_tiny\n", f"!apply:os.system ['touch {marker}']\n#")
    code = code.replace("  attention: temporal\n  n_mels: 80\n# The", "# The")
    (broken / "hyperparams.yaml").write_text(code)
    with pytest.raises(ValueError, match="os.system"):
        load_speaker_model(broken)
    assert not marker.exists()


def test_nothing_of_an_earlier_export_stays(training_folder, tmp_path, recordings):
    out = tmp_path / "model"
    export_hub(training_folder, out, Calibration(scale=2.0, offset=0.0, p_target=0.1), examples=recordings)
    (out / "other.ckpt").write_text("of the user's own")
    assert (out / "calibration.json").is_file() and (out / "example2.wav").is_file()
    export_hub(training_folder, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == FILES - {"calibration.json", "example1.wav"} | {
        "other.ckpt"
    }


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_told(training_folder, tmp_path, monkeypatch):
    def full(self, content):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export_hub(training_folder, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_classifier_is_told(training_folder, tmp_path):
    training = shutil.copytree(training_folder, tmp_path / "training")
    for path in training.glob("save/CKPT+*/classifier.ckpt"):
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="classifier.ckpt' cannot be loaded"):
        export_hub(training, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_impossible_id_is_told_before_anything_is_written(training_folder, tmp_path):
    result = CliRunner().invoke(
        export, ["hub", str(tmp_path / "out"), "-m", str(training_folder), "--push", "a/b/c"]
    )
    assert result.exit_code == 2 and "--push a/b/c: expected OWNER/MODEL" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_example_that_is_no_audio_is_told(training_folder, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match="text.wav: cannot be read"):
        export_hub(training_folder, tmp_path / "model", examples=[tmp_path / "text.wav"])
