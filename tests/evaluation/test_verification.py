"""The verification recipe from the command line, on a small corpus with a small encoder."""

import importlib.util
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_bccmt import bccmt_tiny
from speechbrain_bccmt.scoring import equal_error_rate, min_dcf
from tests.tiny_hub_folder import write_hyperparams

ROOT = Path(__file__).resolve().parents[2]
YAML = str(ROOT / "hparams" / "verification.yaml")
TEST_SPEAKERS, TRAIN_SPEAKERS, UTTERANCES = 4, 5, 4


@pytest.fixture(scope="module")
def main():
    path = ROOT / "recipes" / "VoxCeleb" / "SpeakerRec" / "speaker_verification_cosine.py"
    spec = importlib.util.spec_from_file_location("speaker_verification_cosine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch):
    """SpeechBrain points the root logger at the streams of the test, which are closed afterwards."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Coloured noises, one colour a speaker, and an untrained encoder: only the bookkeeping is tested."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for speaker in range(TEST_SPEAKERS + TRAIN_SPEAKERS):
        colour = generator.normal(size=16)
        for number in range(UTTERANCES):
            path = folder / "wav" / f"id{speaker:02d}" / "s0" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = generator.normal(0, 0.02, 6000 + 1000 * number)
            soundfile.write(path, np.convolve(noise, colour, "same").clip(-1, 1), 16000)
    names = [(s, n) for s in range(TEST_SPEAKERS) for n in range(UTTERANCES)]
    lines = [
        f"{int(a[0] == b[0])} id{a[0]:02d}/s0/{a[1]}.wav id{b[0]:02d}/s0/{b[1]}.wav"
        for index, a in enumerate(names)
        for b in names[index + 1 :]
    ]
    (folder / "trials.txt").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    write_hyperparams(folder / "run", "bccmt_tiny")
    recoverables = {"embedding_model": bccmt_tiny()}
    Checkpointer(folder / "run" / "save", recoverables).save_checkpoint(meta={"eer": 0.1})
    return folder


def arguments(corpus, output, *more, **changes):
    options = {
        "data_folder": corpus,
        "verification_file": corpus / "trials.txt",
        "pretrain_path": corpus / "run",
        "output_folder": output,
        "device": "cpu",
    } | changes
    return [YAML, *(f"--{name}={value}" for name, value in options.items()), *more]


def read_scores(path):
    fields = [line.split() for line in path.read_text().splitlines()]
    scores, target = np.array([float(f[3]) for f in fields]), np.array([f[2] == "1" for f in fields])
    return [tuple(f[:2]) for f in fields], target, scores


def test_whole_run(main, corpus, tmp_path, capsys):
    assert main(arguments(corpus, tmp_path, "--cohort_utterances=2", "--top_n=3")) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    trials = [line.split() for line in (corpus / "trials.txt").read_text().splitlines()]
    for name, file in (("cosine", "scores.txt"), ("s-norm", "scores_norm.txt")):
        pairs, target, scores = read_scores(tmp_path / file)
        assert pairs == [(a.removesuffix(".wav"), b.removesuffix(".wav")) for _, a, b in trials]
        assert target.tolist() == [label == "1" for label, _, _ in trials]
        summary = results["scores"][name]
        assert summary["eer"] == pytest.approx(equal_error_rate(scores[target], scores[~target])[0])
        assert summary["min_dcf"] == pytest.approx(min_dcf(scores[target], scores[~target])[0])
        assert summary["n_target"] == target.sum() and summary["n_nontarget"] == (~target).sum()
        assert summary["mean_target"] == pytest.approx(scores[target].mean())
    assert results["cohort_speakers"] == TRAIN_SPEAKERS
    assert results["n_utterances"] == TEST_SPEAKERS * UTTERANCES
    assert results["n_parameters"] == sum(p.numel() for p in bccmt_tiny().parameters())
    for picture in ("score_histogram.png", "det.png"):
        assert (tmp_path / picture).stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "EER in %" in printed and "s-norm" in printed and str(tmp_path) in printed


def test_another_run_embeds_nothing(main, corpus, tmp_path, monkeypatch):
    store = tmp_path / "embeddings"
    assert main(arguments(corpus, tmp_path / "one", embeddings_folder=store)) == 0
    monkeypatch.setattr("speechbrain_bccmt.inference.embedding.embed_utterances", None)
    assert main(arguments(corpus, tmp_path / "two", embeddings_folder=store, top_n=3)) == 0
    texts = [(tmp_path / run / "scores.txt").read_text() for run in ("one", "two")]
    assert texts[0] == texts[1]
    with pytest.raises(TypeError):  # another folder holds none
        main(arguments(corpus, tmp_path / "three"))


def test_without_score_norm_and_after_a_run_with_it(main, corpus, tmp_path):
    (tmp_path / "scores_norm.txt").write_text("of an earlier run")
    assert main(arguments(corpus, tmp_path, "--score_norm=null", "--c_miss=10")) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["scores"]) == ["cosine"] and results["costs"]["c_miss"] == 10
    assert not (tmp_path / "scores_norm.txt").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pretrain_path": "no/such/folder"}, "no model at 'no/such/folder'"),
        ({"verification_file": "gone.txt"}, "gone.txt"),
        ({"data_folder": "no/such/folder"}, "no/such/folder"),
        ({"score_norm": "z-norm"}, "score_norm is 'z-norm', expected s-norm or null"),
        ({"top_n": 1}, "top_n is 1, expected at least 2"),
        ({"cohort_size": 1}, "cohort of 1 has no standard deviation"),
        ({"no_such_key": 1}, "no_such_key"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(main, corpus, tmp_path, capsys, changes, message):
    assert main(arguments(corpus, tmp_path, **changes)) == 2
    error = capsys.readouterr().err
    error = error[error.index("error: ") :]
    assert message in error and "Traceback" not in error


def test_placeholders_must_be_given(main, tmp_path, capsys):
    assert main([YAML, f"--output_folder={tmp_path}"]) == 2
    assert "pretrain_path" in capsys.readouterr().err
    assert main(["no_such.yaml"]) == 2
    assert "no_such.yaml" in capsys.readouterr().err
