"""From a training on the features of sherpa-onnx to its real package: the same embeddings, the same decisions."""

import re

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hyperpyyaml import load_hyperpyyaml

from speechbrain_bccmt.cli import main
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.recipes.test_recipes import ROOT, ROWS, row_of, run

sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed")
TRAINING = ("bccmt", "bccmt_distilled", "bccmt_tiny_kd", "token", "token_kd", "token_phonetic")


@pytest.mark.parametrize("name", TRAINING)
def test_every_training_takes_them(name):
    yaml = ROOT / "hparams" / f"{name}.yaml"
    needed = re.findall(r"^(\w+): !PLACEHOLDER", yaml.read_text(encoding="utf-8"), re.MULTILINE)
    overrides = dict.fromkeys(needed, "somewhere") | {"front_end": "sherpa"}
    with open(yaml, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    front_end = hparams["modules"]["compute_features"]
    assert (type(front_end).__name__, front_end.f_max, front_end.n_reflected > 0) == (
        "KaldiFbank",
        7600,
        True,
    )


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_training_to_sherpa_onnx(corpus, tmp_path):
    training = tmp_path / "training"
    assert run(row_of("bccmt"), training, "--front_end=sherpa", **corpus) == 0
    row = next(row for row in ROWS if row["Hparam_file"] == "hparams/verification.yaml")
    options = f"--score_norm=null --pretrain_path={training}"
    assert run(row, tmp_path / "verified", options, **corpus, student=training) == 0
    exported = CliRunner().invoke(main, ["export", "onnx", str(tmp_path / "onnx"), "-m", str(training)])
    assert exported.exit_code == 0, exported.output

    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(tmp_path / "onnx" / "sherpa.onnx"))
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)
    model = SpeakerVerification.from_hparams(training)
    lines = [line.split() for line in (tmp_path / "verified" / "scores.txt").read_text().splitlines()]
    theirs = {}
    for name in {name for line in lines for name in line[:2]}:
        path = corpus["corpus"] / "wav" / name
        path = path if path.suffix else path.with_suffix(".wav")
        stream = extractor.create_stream()
        stream.accept_waveform(16000, soundfile.read(path, dtype="float32")[0])
        stream.input_finished()
        theirs[name] = np.array(extractor.compute(stream))
        assert cosine(theirs[name], model.embed(path).numpy()) > 0.9999
    ours = np.array([float(line[3]) for line in lines])
    scores = np.array([cosine(theirs[line[0]], theirs[line[1]]) for line in lines])
    assert np.allclose(scores, ours, atol=1e-3)
    threshold = np.median(ours)
    assert 0 < (ours >= threshold).sum() < len(ours)
    assert ((scores >= threshold) == (ours >= threshold)).all()
