"""A model by the graph that it ships gives PyTorch's embeddings and decisions, and no other model's."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.export.hub import export_hub
from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.inference.loading import load_verifier
from speechbrain_bccmt.inference.model_files import GRAPH_FILE
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.models import resolve_model
from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import CALIBRATION, voice


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Write a small model, as a training leaves it and as it is published."""
    folder = tmp_path_factory.mktemp("models")
    trained = write_hub_folder(folder / "trained", CALIBRATION)
    return trained, export_hub(trained, folder / "published")


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def spoken(speech_data, tmp_path_factory):
    """Write recordings of every kind: short and long, of two channels, of other rates, over a hum, clipped, silent."""
    folder = tmp_path_factory.mktemp("spoken")
    files = find_recordings(speech_data / "speechocean762")[::500]
    long = np.concatenate([soundfile.read(path)[0] for path in find_recordings(speech_data / "an4")[:20]])
    assert len(long) > 40 * 16000
    hum = 0.2 * np.sin(2 * np.pi * 50 * np.arange(80000) / 16000)
    for name, wav, rate in (
        ("long", long, 16000),
        ("short", long[:1700], 16000),
        ("stereo", np.stack([long, long / 2], 1)[:90000], 16000),
        ("44100", long[:90000], 44100),
        ("8000", long[:90000], 8000),
        ("hum", long[:80000] + hum, 16000),
        ("clipped", np.clip(20 * long[:80000], -0.9, 0.9), 16000),
        ("silent", np.zeros(16000), 16000),
    ):
        files.append(str(folder / f"{name}.wav"))
        soundfile.write(files[-1], wav, rate)
    return files


def test_embeddings_and_decisions_are_those_of_pytorch(spoken, detector):
    network, graph = load_verifier(engine="torch"), load_verifier()
    assert (network.engine, graph.engine) == ("torch", "onnx")
    pairs = [(network.embed_file(path), graph.embed_file(path)) for path in spoken]
    for expected, found in pairs:
        assert cosine(expected.embedding, found.embedding) > 0.99999, found.path
        assert replace(found, embedding=0) == replace(expected, embedding=0)
    for one, other in zip(pairs[:-1], pairs[1:], strict=True):
        expected, found = (
            model.verify_utterances([one[side]], [other[side]]) for side, model in enumerate((network, graph))
        )
        assert found.decision == expected.decision and found.threshold == expected.threshold
        assert found.score == pytest.approx(expected.score, abs=1e-4)
        assert found.llr == pytest.approx(expected.llr, abs=1e-2, nan_ok=True)


def test_a_published_model_has_its_graph(published):
    trained, folder = published
    network, graph = load_verifier(trained), load_verifier(folder)
    assert (network.engine, graph.engine) == ("torch", "onnx")
    assert load_verifier(folder, "torch").fingerprint == network.fingerprint == graph.fingerprint
    assert graph.calibration == CALIBRATION and graph.threshold == network.threshold
    for seconds in (0.1, 1.3, 31.0):
        wav = voice(seconds).astype(np.float32)
        assert cosine(graph.embed(wav), network.embed(wav).numpy()) > 0.99999


def test_waveforms_of_any_kind(tmp_path):
    model, wav = GraphVerifier.load(), voice(1.0)
    soundfile.write(tmp_path / "a.wav", wav, 16000, "FLOAT")
    expected = model.embed(tmp_path / "a.wav", vad=False)
    assert expected.shape == (192,) and expected.dtype == np.float32
    batch = model.embed(np.stack([wav, wav]))
    files = model.embed([str(tmp_path / "a.wav")], vad=False)
    wide = model.embed(np.round(wav * 2**31).astype(np.int32))
    for found in (*batch, *files, wide, model.embed(np.repeat(wav, 3), sample_rate=48000)):
        assert cosine(found, expected) > 0.99
    with pytest.raises(ValueError, match="0.05 s is too short"):
        model.embed(wav[:800])
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.embed(np.full(16000, np.nan))
    with pytest.raises(ValueError, match="no files"):
        model.embed([])


def test_voiceprints_of_both_engines_can_be_compared(tmp_path):
    wavs = {name: voice(2.0, seed) for seed, name in enumerate(("ada", "bela"))}
    for name, wav in wavs.items():
        soundfile.write(tmp_path / f"{name}.wav", wav, 16000)
    models = [load_verifier(engine=engine) for engine in ("torch", "onnx")]
    for enroller, asked in (models, models[::-1]):
        store = tmp_path / f"{enroller.engine}.db"
        for name in wavs:
            utterance = enroller.embed_file(tmp_path / f"{name}.wav")
            Voiceprints(store, enroller.fingerprint).enroll(name, [utterance.embedding], [2.0])
        probe = asked.embed_file(tmp_path / "bela.wav").embedding
        (found,) = Voiceprints(store, asked.fingerprint).identify(probe[None], 0.9)
        assert found.speaker == "bela" and found.candidates[0].score == pytest.approx(1, abs=1e-5)


def test_sixteen_threads_share_a_model(tmp_path, detector):
    """Each with its own waveform, all at once: everybody gets what they would get alone."""
    model = GraphVerifier.load()
    wavs = [voice(0.2 + 0.13 * number, number).astype(np.float32) for number in range(16)]
    for number, wav in enumerate(wavs):
        soundfile.write(tmp_path / f"{number}.wav", wav, 16000)
    alone = [model.embed_file(tmp_path / f"{number}.wav", vad=True).embedding for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        for _ in range(4):
            tasks = [pool.submit(model.embed_file, tmp_path / f"{number}.wav", True) for number in range(16)]
            together = [task.result().embedding for task in tasks]
            assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def test_memory_stays_as_it_is():
    """Over calls of many lengths; benchmarks/runtime_wheel.py makes 100,000."""
    statm = "/proc/self/statm"
    if not sys.platform.startswith("linux"):
        pytest.skip("reads the memory in use from /proc")

    def megabytes():
        with open(statm) as file:
            return int(file.read().split()[1]) * 4096 / 1e6

    model, rng = GraphVerifier.load(), np.random.default_rng(0)
    wavs = [rng.normal(0, 0.1, size).astype(np.float32) for size in rng.integers(1600, 20000, 50)]
    used = []
    for _ in range(5):
        for wav in wavs:
            model.embed_waveform(wav)
        used.append(megabytes())
    assert used[-1] < used[0] + 3


def test_a_graph_of_another_network_is_not_used(published, tmp_path, caplog):
    folder = shutil.copytree(published[1], tmp_path / "copy")
    export_onnx(load_speaker_model("tiny"), folder / GRAPH_FILE, "waveform")
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(ValueError, match="waveform.onnx is damaged, or not the file that"):
        load_verifier(folder, "onnx")
    (folder / "config.json").write_text(json.dumps({**config, "sha256": {}}))
    with pytest.raises(ValueError, match="waveform.onnx is the graph of another model than"):
        load_verifier(folder, "onnx")
    assert load_verifier(folder).engine == "torch" and "PyTorch runs the model instead" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no graph", None])
def test_a_damaged_graph_is_said_to_be_damaged(published, tmp_path, content, caplog):
    folder = shutil.copytree(published[1], tmp_path / "copy")
    whole = (folder / GRAPH_FILE).read_bytes()
    (folder / GRAPH_FILE).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="waveform.onnx is damaged, or not the file that .*config.json"):
        GraphVerifier.load(folder)
    assert load_verifier(folder).engine == "torch" and "is damaged" in caplog.text
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sha256": {}}))
    with pytest.raises(ValueError, match="waveform.onnx is not a usable ONNX file"):
        GraphVerifier.load(folder)


def test_a_graph_of_something_else_is_refused(tmp_path):
    path = export_onnx(load_speaker_model("tiny"), tmp_path / "features.onnx")
    with pytest.raises(ValueError, match=r"no graph from waveform .*\(it is a graph of features\)"):
        GraphVerifier(path)


def test_an_engine_that_cannot_be(published, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="has no waveform.onnx"):
        load_verifier(published[0], "onnx")
    with pytest.raises(ValueError, match="runs on the CPU here, not on 'cuda'"):
        load_verifier("tiny", "onnx", "cuda")
    with pytest.raises(ValueError, match="engine is 'tpu', expected one of auto, onnx, torch"):
        load_verifier("tiny", "tpu")
    with pytest.raises(ValueError, match="a.onnx: the features of a file of another toolkit"):
        load_verifier("a.onnx", "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="waveform.onnx needs ONNX Runtime: pip install onnxruntime"):
        load_verifier("tiny", "onnx")
    assert load_verifier("tiny").engine == "torch"


def test_without_pytorch(published, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert load_verifier("tiny").engine == "onnx"
    for source, options in ((published[0], {}), ("tiny", {"engine": "torch"}), ("tiny", {"device": "cuda"})):
        with pytest.raises(ImportError, match="needs PyTorch here .*pip install speechbrain_bccmt"):
            load_verifier(source, **options)


@pytest.mark.parametrize("command", ["embed", "verify", "enroll", "identify"])
def test_commands_take_an_engine(published, tmp_path, command):
    soundfile.write(tmp_path / "a.wav", voice(1.0), 16000)
    clip, store = str(tmp_path / "a.wav"), str(tmp_path / "voices.db")
    arguments = {
        "embed": [clip],
        "verify": [clip, clip],
        "enroll": [store, "ada", clip],
        "identify": [store, clip, "--threshold", "0.5"],
    }
    if command == "identify":
        assert (
            CliRunner().invoke(cli.main, ["enroll", *arguments["enroll"], "-m", str(published[1])]).exit_code
            == 0
        )
    outputs = []
    for engine in ("torch", "onnx"):
        options = ["-m", str(published[1]), "--engine", engine, "--json" if command != "embed" else "--quiet"]
        result = CliRunner().invoke(cli.main, [command, *arguments[command], *options])
        assert result.exit_code == 0, result.output
        outputs.append(json.loads(result.stdout.splitlines()[-1]))
    torch_output, onnx_output = outputs
    assert torch_output.keys() == onnx_output.keys()
    if command == "verify":
        assert torch_output["decision"] == onnx_output["decision"] == "same"
    result = CliRunner().invoke(
        cli.main, [command, *arguments[command], "-m", str(published[0]), "--engine", "onnx"]
    )
    assert result.exit_code == 2 and "has no waveform.onnx" in result.stderr


def test_the_shipped_graph_is_of_the_shipped_parameters():
    assert GraphVerifier.load().fingerprint == load_verifier(engine="torch").fingerprint
    config = json.loads((resolve_model("tiny") / "config.json").read_text())
    assert config["fingerprint"] == GraphVerifier.load().fingerprint
