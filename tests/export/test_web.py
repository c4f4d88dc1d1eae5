"""The files of a web page: what a browser needs of the model is in them, and browsers notice a new one."""

import gzip
import hashlib
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.export import web
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.scoring.quality_fusion import load_calibration
from speechbrain_bccmt.sessions import load_session
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import CALIBRATION, voice


@pytest.fixture
def page(tmp_path):
    """Write a built page, as small as can be."""
    folder = tmp_path / "built"
    folder.mkdir()
    for name, content in {"index.html": "page", "app.js": "app", web.SERVICE_WORKER: "serve(SHELL);"}.items():
        (folder / name).write_text(content)
    (folder / "runtime.wasm.brotli").write_bytes(b"runtime")
    packed = {"runtime": {"file": "runtime.wasm.brotli", "packed_bytes": 7, "bytes": 20, "sha256": "0" * 64}}
    (folder / web.LISTING).write_text(json.dumps({"shell": ["app.js", "index.html"], "packed": packed}))
    return folder


@pytest.fixture
def hub(tmp_path):
    return write_hub_folder(tmp_path / "voices", CALIBRATION)


def shell(folder):
    code = (folder / web.SERVICE_WORKER).read_text()
    head, rest = code.split("\n", 1)
    assert rest == "serve(SHELL);"
    return json.loads(head.removeprefix("const SHELL = ").removesuffix(";"))


def test_the_folder_has_what_the_page_needs_of_the_model(page, hub, tmp_path):
    out = tmp_path / "out"
    model = load_speaker_model(hub)
    written = web.export_web(model, out, page)
    assert sorted(written) == sorted(out.iterdir())
    config = json.loads((out / web.CONFIG).read_text())
    assert config["name"] == "voices" and config["sample_rate"] == 16000 and config["embedding_size"] == 16
    assert config["min_seconds"] == 0.1 and config["max_chunk_seconds"] == 30
    assert config["fingerprint"] == fingerprint(model.modules)
    assert load_calibration(out / config["calibration"]) == CALIBRATION
    assert config["packed"]["runtime"]["sha256"] == "0" * 64
    # The graph is whole, and embeds as the model does.
    part = config["packed"]["model"]
    packed = (out / part["file"]).read_bytes()
    graph = gzip.decompress(packed)
    assert (len(packed), len(graph)) == (part["packed_bytes"], part["bytes"])
    assert hashlib.sha256(graph).hexdigest() == part["sha256"]
    (tmp_path / "graph.onnx").write_bytes(graph)
    wav = voice(1.5).astype(np.float32)
    (found,) = load_session(tmp_path / "graph.onnx").run(None, {"waveform": wav[None]})[0]
    expected = SpeakerVerification.from_hparams(hub).embed(torch.from_numpy(wav))
    assert torch.cosine_similarity(torch.from_numpy(found), expected, dim=0) > 0.99999


def test_the_service_worker_keeps_every_file_but_the_large_and_changes_with_the_model(
    page, hub, tmp_path, monkeypatch
):
    monkeypatch.setattr(web, "_graph", lambda model: b"graph")  # saves time
    out = tmp_path / "out"
    web.export_web(load_speaker_model(hub), out, page)
    before = shell(out)
    assert sorted(before["files"]) == ["./", "app.js", "calibration.json", "config.json"]
    web.export_web(load_speaker_model(hub), out, page)
    assert shell(out) == before
    parameters = torch.load(hub / "embedding_model.ckpt")
    torch.save({key: value * 1.01 for key, value in parameters.items()}, hub / "embedding_model.ckpt")
    web.export_web(load_speaker_model(hub), out, page)
    assert shell(out)["version"] != before["version"]


def test_a_model_without_calibration_is_told(page, tmp_path, monkeypatch):
    hub, out = write_hub_folder(tmp_path / "hub"), tmp_path / "out"
    monkeypatch.setattr(web, "PAGE", page)
    result = CliRunner().invoke(cli.main, ["export", "web", str(out), "-m", str(hub)])
    assert result.exit_code == 0 and str(out) in result.stdout
    assert "shows scores, and decides nothing" in result.stderr
    assert json.loads((out / web.CONFIG).read_text())["calibration"] is None
    assert not (out / "calibration.json").exists()


def test_a_page_that_is_not_built_is_told_before_the_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "PAGE", tmp_path / "page")
    out = tmp_path / "out"
    result = CliRunner().invoke(cli.main, ["export", "web", str(out), "-m", str(tmp_path / "gone")])
    assert result.exit_code == 2 and "npm ci && npm run build" in result.stderr
    assert result.stderr.count("\n") == 1 and not out.exists()
