"""A model by the graph that it ships gives its embeddings, and no other model's."""

import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_bccmt.audio.recording import find_recordings
from speechbrain_bccmt.inference.graph import GRAPH_FILE, use_graph
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.models import resolve_model
from tests.tiny_hub_folder import write_hub_folder

pytest.importorskip("onnxruntime")


def load(source="tiny"):
    return SpeakerVerification.from_hparams(source, run_opts={"device": "cpu"})


def test_the_graph_gives_the_embeddings_of_real_speech(speech_data, tmp_path):
    files = find_recordings(speech_data / "speechocean762")[::400]
    long = np.concatenate([soundfile.read(path)[0] for path in find_recordings(speech_data / "an4")[:20]])
    assert len(long) > 40 * 16000
    for name, wav in (
        ("long", long),
        ("short", long[:1700]),
        ("stereo", np.stack([long, long / 2], 1)[:90000]),
    ):
        files.append(str(tmp_path / f"{name}.wav"))
        soundfile.write(files[-1], wav, 16000)
    network, graph = load(), load()
    assert use_graph(graph) and type(graph.mods.embedding_model) is not type(network.mods.embedding_model)
    for path in files:
        expected, found = network.embed_file(path), graph.embed_file(path)
        cosine = torch.cosine_similarity(
            *(torch.from_numpy(one.embedding) for one in (expected, found)), dim=0
        )
        assert cosine > 0.99999 and found.seconds == expected.seconds and found.warnings == expected.warnings


def test_a_graph_of_another_network_is_not_used(tmp_path, caplog):
    folder = write_hub_folder(tmp_path / "hub")
    assert not use_graph(load(folder))  # ships none
    shutil.copy(resolve_model("tiny") / GRAPH_FILE, folder / GRAPH_FILE)
    model, wav = load(folder), torch.randn(16000)
    before = model.embed(wav)
    assert not use_graph(model) and "another network" in caplog.text
    assert torch.equal(model.embed(wav), before)


def test_without_onnx_runtime_pytorch_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not use_graph(load())
