"""`bccmt info`: what it tells of a model."""

import json

import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.profiling import count_macs
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import CALIBRATION


@pytest.fixture(scope="module", params=[CALIBRATION, None], ids=["calibrated", "plain"])
def folder(request, tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "hub", request.param)


def run(*arguments):
    result = CliRunner().invoke(cli.main, ["info", "-m", *map(str, arguments), "--repeats", "1"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json(folder):
    told = json.loads(run(folder, "--json"))
    model = SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})
    encoder = model.mods.embedding_model
    assert told["parameters"] == sum(parameter.numel() for parameter in encoder.parameters())
    assert told["frames_1s"] == 98 and told["macs_1s"] == count_macs(encoder, 98)
    assert told["embedding_size"] == 16 and told["sample_rate"] == 16000 and told["min_seconds"] == 0.1
    assert told["threshold"] == model.threshold
    assert set(told["latency_ms"]) == {"1s", "3s", "10s"} and all(
        value > 0 for value in told["latency_ms"].values()
    )
    assert (told["calibration"] is None) == (model.calibration is None)
    assert told["onnx_latency_ms"] is None


def test_the_graph_is_timed_beside_pytorch():
    told = json.loads(run("tiny", "--json"))
    assert told["onnx_latency_ms"].keys() == told["latency_ms"].keys()
    assert all(value > 0 for value in told["onnx_latency_ms"].values())
    assert "ms in ONNX Runtime; 1s " in run("tiny")


def test_table(folder):
    text = run(folder)
    for part in (
        "parameters",
        "98 frames",
        "waveform to embedding",
        "1 thread",
        "16 values",
        "16000 Hz",
        "0.1 s",
    ):
        assert part in text
    assert ("threshold 0.3000" in text) != ("none: give --threshold" in text)
