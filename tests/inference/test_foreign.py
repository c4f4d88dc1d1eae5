"""Encoders of others: an ONNX file with sherpa-onnx's metadata, and a network that knows no padding."""

import json

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from torch import nn

from speechbrain_bccmt import cli
from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.foreign import OnnxEncoder, UnpaddedEncoder, onnx_modules
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from tests.voices import voice

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Export the shipped model for sherpa-onnx."""
    return export_onnx(load_speaker_model(), tmp_path_factory.mktemp("exported") / "sherpa.onnx", "sherpa")


def with_metadata(source, path, **changes):
    """Write a graph with other metadata; None takes an entry away."""
    graph = onnx.load(source)
    known = {entry.key: entry.value for entry in graph.metadata_props} | changes
    del graph.metadata_props[:]
    for key, value in known.items():
        if value is not None:
            graph.metadata_props.add(key=key, value=value)
    onnx.save(graph, path)
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for number, seconds in enumerate((1.0, 1.7)):
        wave = voice(seconds, number)
        soundfile.write(folder / f"{number}.wav", wave, 16000)
    return folder


def test_a_file_is_a_model(exported, recordings, tmp_path):
    own, other = (load_speaker_model(source) for source in ("tiny", exported))
    assert other.sample_rate == 16000 and other.embedding_size == 192 and other.calibration is None
    result = CliRunner().invoke(
        cli.main, ["embed", str(recordings), "-m", str(exported), "-o", str(tmp_path / "out.npz"), "--quiet"]
    )
    assert result.exit_code == 0, result.output
    found = np.load(tmp_path / "out.npz")["embeddings"]
    result = CliRunner().invoke(cli.main, ["embed", str(recordings), "--quiet"])
    expected = np.array([json.loads(line)["embedding"] for line in result.stdout.splitlines()])
    # The graph for sherpa-onnx leaves out the last frame.
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.99
    assert fingerprint(own.modules) != fingerprint(other.modules)


def test_the_metadata_choose_scale_and_mean(exported, tmp_path):
    modules = onnx_modules(
        with_metadata(exported, tmp_path / "a.onnx", normalize_samples="0", feature_normalize_type="global-mean")
    )
    wave = 0.1 * torch.randn(1, 16000)
    features = modules["compute_features"](wave)
    expected = onnx_modules(exported)["compute_features"](32768 * wave)
    assert torch.allclose(features, expected, atol=1e-3)
    assert modules["mean_var_norm"](features, torch.ones(1)).mean(1).abs().max() < 1e-4
    plain = onnx_modules(exported)["mean_var_norm"]
    assert torch.equal(plain(features, torch.ones(1)), features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_samples": None}, "lack normalize_samples or sample_rate"),
        ({"sample_rate": "sixteen"}, "lack normalize_samples or sample_rate"),
        ({"feature_normalize_type": "variance"}, "feature_normalize_type is 'variance'"),
    ],
)
def test_metadata_that_say_too_little_are_refused(exported, tmp_path, changes, message):
    path = with_metadata(exported, tmp_path / "a.onnx", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_speaker_model(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_graph_are_refused(tmp_path):
    (tmp_path / "no.onnx").write_text("no graph")
    with pytest.raises(ValueError, match="no.onnx is not a usable ONNX file"):
        OnnxEncoder(tmp_path / "no.onnx")
    with pytest.raises(FileNotFoundError):
        OnnxEncoder(tmp_path / "gone.onnx")


class Mean(nn.Module):
    def forward(self, features):
        return torch.cat([features.mean(1), features.std(1)], 1)


def test_a_folder_names_any_network_and_its_checkpoint(recordings, tmp_path, monkeypatch):
    torch.manual_seed(0)
    linear = nn.Linear(80, 8)
    torch.save({"state_dict": linear.state_dict()}, tmp_path / "weights.pt")
    yaml = f"""
compute_features: !new:speechbrain_bccmt.features.KaldiFbank {{scale: 32768}}
mean_var_norm: !new:speechbrain.processing.features.InputNormalization {{norm_type: sentence, std_norm: False}}
embedding_model: !new:speechbrain_bccmt.inference.foreign.UnpaddedEncoder
    model: !new:tests.inference.test_foreign.Pooled
    checkpoint: {tmp_path / "weights.pt"}
"""
    (tmp_path / "hyperparams.yaml").write_text(yaml)
    with pytest.raises(ValueError, match="asks for 'tests.inference.test_foreign.Pooled'"):
        load_speaker_model(tmp_path)
    model = load_speaker_model(tmp_path, trust_code=True)
    assert torch.equal(model.embedding_model.model.weight, linear.weight)
    assert model.embedding_size == 8
    torch.save(nn.Linear(80, 9).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="weights.pt does not fit Pooled: .*size mismatch"):
        load_speaker_model(tmp_path, trust_code=True)


class Pooled(nn.Linear):
    def __init__(self):
        super().__init__(80, 8)

    def forward(self, features):
        return super().forward(features.mean(1))


def test_padding_changes_nothing():
    features = torch.randn(3, 20, 4)
    encoder = UnpaddedEncoder(Mean())
    found = encoder(features, torch.tensor([1.0, 0.5, 0.25]))
    for row, frames in enumerate((20, 10, 5)):
        assert torch.allclose(found[row], Mean()(features[row : row + 1, :frames]))
    assert torch.equal(encoder(features, torch.full((3,), 0.5)), encoder(features[:, :10]))
    assert found.shape == (3, 1, 8)
