"""`bccmt evaluate`: what it reads, prints and writes, and what it says to mistakes."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.scoring import Calibration, cllr, cosine_scores, equal_error_rate, min_dcf
from speechbrain_bccmt.scoring.quality import quality_measures
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion
from speechbrain_bccmt.trials.read import read_trials

SPEAKERS, EACH = 8, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Embeddings of speakers, a cohort, trials, score files of two systems, conditions."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    ids = [f"s{speaker}/u{utterance}" for speaker in range(SPEAKERS) for utterance in range(EACH)]
    centres = np.repeat(rng.standard_normal((SPEAKERS, 16)), EACH, axis=0)
    vectors = centres + 0.9 * rng.standard_normal(centres.shape)
    np.savez(folder / "e.npz", ids=ids, embeddings=vectors, seconds=rng.uniform(1, 9, len(ids)))
    np.savez(folder / "cohort.npz", ids=np.arange(30), embeddings=rng.standard_normal((30, 16)))
    pairs = [(i, j) for i in range(len(ids)) for j in range(i)]
    labels = [int(ids[i][:2] == ids[j][:2]) for i, j in pairs]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = [float(unit[i] @ unit[j]) for i, j in pairs]
    rows = list(zip(labels, pairs, scores, strict=True))
    (folder / "trials.txt").write_text("".join(f"{y} {ids[i]} {ids[j]}\n" for y, (i, j), _ in rows))
    (folder / "a.txt").write_text("".join(f"{ids[i]} {ids[j]} {y} {s:.6f}\n" for y, (i, j), s in rows))
    (folder / "b.txt").write_text("".join(f"{ids[i]} {ids[j]} {-s:.6f}\n" for y, (i, j), s in reversed(rows)))
    key = "".join(f"{ids[i]} {ids[j]} {'same' if (i + j) % 2 else 'other'}\n" for _, (i, j), _ in rows)
    (folder / "key.txt").write_text("enrol test channel\n" + key)
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(cli.main, ["evaluate", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def figures(*arguments):
    return json.loads(run(*arguments, "--json").stdout)["systems"]


def test_the_figures_are_those_of_the_metrics(folder):
    rows = [line.split() for line in (folder / "a.txt").read_text().splitlines()]
    sides = [[float(score) for *_, label, score in rows if label == kind] for kind in "10"]
    found = figures("--scores", folder / "a.txt", "--resamples", 0, "--p-target", 0.05)["a"]
    assert found["eer"] == equal_error_rate(*sides)[0]
    assert found["min_dcf"] == min_dcf(*sides, p_target=0.05)[0]
    assert "intervals" not in found and "act_dcf" not in found


def test_intervals_hold_the_figures_and_are_repeatable(folder):
    found = figures("--scores", folder / "a.txt", "--resamples", 100)["a"]
    low, high = found["intervals"]["eer"]
    assert low < found["eer"] < high
    assert found == figures("--scores", folder / "a.txt", "--resamples", 100)["a"]
    assert "[" in run("--scores", folder / "a.txt", "--resamples", 20).stdout


def test_systems_are_brought_to_the_same_trials(folder):
    common = ("--trials", folder / "trials.txt", "--resamples", 0)
    found = figures("--scores", folder / "a.txt", "--scores", f"turned={folder / 'b.txt'}", *common)
    assert list(found) == ["a", "turned"]
    assert found["turned"]["eer"] == pytest.approx(
        1 - found["a"]["eer"], abs=0.02
    )  # b has all scores negated


def test_files_of_one_name_are_told_apart_by_their_folders(folder, tmp_path, monkeypatch):
    arguments = []
    for name in ("one/seed/scores.txt", "two/seed/scores.txt", "two/other.txt", "third/scores.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((folder / "a.txt").read_text())
        arguments += ["--scores", name]
    monkeypatch.chdir(tmp_path)
    found = figures(*arguments, "--resamples", 0, "--output", "report")
    assert list(found) == ["one/seed/scores", "two/seed/scores", "other", "third/scores"]
    found = figures(
        "--scores", "mine=one/seed/scores.txt", "--scores", "two/seed/scores.txt", "--resamples", 0
    )
    assert list(found) == ["mine", "scores"]


def test_embeddings_may_be_named_by_their_files(folder, tmp_path):
    arrays = dict(np.load(folder / "e.npz"))
    named = [f"{name}.wav" for name in arrays["ids"]]
    np.savez(tmp_path / "e.npz", **arrays | {"ids": named})
    options = "--trials", folder / "trials.txt", "--resamples", 0
    expected = figures("--embeddings", folder / "e.npz", *options)
    assert figures("--embeddings", tmp_path / "e.npz", *options) == expected
    # Two files of one name but for the extension: which one is meant is not for a guess.
    twice = {
        "ids": [*named, f"{arrays['ids'][0]}.flac"],
        "embeddings": arrays["embeddings"][[*range(len(named)), 0]],
    }
    np.savez(tmp_path / "twice.npz", **twice)
    result = run("--embeddings", tmp_path / "twice.npz", *options, code=2)
    assert "have no embedding, such as s" in result.stderr


def test_embeddings_score_as_their_score_file(folder):
    found = figures(
        *("--embeddings", folder / "e.npz", "--trials", folder / "trials.txt", "--resamples", 0),
        *("--cohort", folder / "cohort.npz", "--top-n", 20),
    )
    direct = figures("--scores", folder / "a.txt", "--resamples", 0)["a"]
    assert list(found) == ["e, cosine", "e, s-norm"]
    assert found["e, cosine"]["eer"] == pytest.approx(direct["eer"], abs=1e-3)
    assert found["e, s-norm"]["mean_target"] != found["e, cosine"]["mean_target"]


def test_quality_of_both_sides_calibrates_beside_the_score(folder):
    """Durations and norms count as they count in `QualityFusion`; the same trials serve for both here."""
    common = (
        "--embeddings",
        folder / "e.npz",
        "--trials",
        folder / "trials.txt",
        "--resamples",
        0,
        "--p-target",
        0.2,
    )
    found = figures(*common, "--quality-trials", folder / "trials.txt")
    assert list(found) == ["e, cosine", "e, quality-aware"]
    alone, aware = found.values()
    trials, file = read_trials(folder / "trials.txt"), np.load(folder / "e.npz")
    place = {name: row for row, name in enumerate(file["ids"].tolist())}
    rows = [place[name] for name in trials.ids]
    measures = quality_measures(file["seconds"][rows], file["embeddings"][rows])
    sides = trials.enrol, trials.test, measures
    scores = cosine_scores(file["embeddings"][rows], *sides[:2])
    llrs = QualityFusion.fit(scores, trials.target, *sides, p_target=0.2).llr(scores, *sides)
    assert aware["cllr"] == pytest.approx(cllr(llrs[trials.target], llrs[~trials.target]), rel=1e-4)
    # Fitted on the very trials, the regression with more inputs cannot be worse by its own measure.
    assert aware["cllr"] < alone["cllr"] and {"act_dcf", "cllr"} <= alone.keys()
    assert (
        "goes with --embeddings" in run("--scores", folder / "a.txt", "--quality-trials", "x", code=2).stderr
    )


def test_pictures_and_results_are_written(folder, tmp_path):
    calibration = tmp_path / "calibration.json"
    told = run("--scores", folder / "a.txt", "--save-calibration", calibration, "--resamples", 0).stdout
    threshold = Calibration.load(calibration).threshold
    assert f"{threshold:.4f}" in told
    common = ("--trials", folder / "trials.txt", "--calibration", calibration, "--resamples", 0)
    output = run("--embeddings", folder / "e.npz", *common, "-o", tmp_path / "out").stdout
    assert "actDCF" in output and "Cllr" in output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = ("det", "score_histogram", "calibration", "eer_by_duration")
    assert names == {"results.json"} | {name + suffix for name in pictures for suffix in (".png", ".svg")}
    found = json.loads((tmp_path / "out" / "results.json").read_text())["systems"]["e, cosine"]
    assert found["calibrated_threshold"] == pytest.approx(threshold)
    assert found["cllr"] < 1 and found["act_dcf"] >= found["min_dcf"]


def test_conditions_make_a_table(folder):
    told = run("--scores", folder / "a.txt", "--conditions", folder / "key.txt", "--resamples", 0).stdout
    assert "pooled" in told and "channel    same" in told and "channel    other" in told


def test_no_intervals_without_speakers(folder, tmp_path):
    (tmp_path / "plain.txt").write_text("1 0.9\n1 0.4\n0 0.5\n0 0.1\n")
    assert "does not name the trials" in run("--scores", tmp_path / "plain.txt").stdout
    (tmp_path / "flat.txt").write_text("u1 u2 1 0.9\nu1 u3 0 0.2\n")
    assert "give --speakers" in run("--scores", tmp_path / "flat.txt").stdout
    (tmp_path / "utt2spk").write_text("u1 ada\nu2 ada\nu3 bela\n")
    told = run("--scores", tmp_path / "flat.txt", "--speakers", tmp_path / "utt2spk", "--resamples", 5).stdout
    assert "No confidence" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--scores or --embeddings"),
        (["--scores", "{f}/none.txt"], "none.txt"),
        (["--embeddings", "{f}/e.npz"], "needs --trials"),
        (["--embeddings", "{f}/a.txt", "--trials", "{f}/trials.txt"], "not from '.txt'"),
        (["--embeddings", "{f}/cohort.npz", "--trials", "{f}/trials.txt"], "have no embedding, such as s"),
        (["--scores", "{f}/a.txt", "--cohort", "{f}/cohort.npz"], "needs --embeddings"),
        (["--scores", "{f}/a.txt", "--scores", "{f}/a.txt"], "two systems are called a"),
        (["--scores", "{f}/b.txt"], "no labels"),
        (["--scores", "{f}/a.txt", "--p-target", "2", "--resamples", "0"], "p_target"),
        (["--scores", "{f}/a.txt", "--calibration", "{f}/trials.txt"], "trials.txt"),
    ],
)
def test_mistakes_are_told_in_a_line(folder, arguments, message):
    result = run(*(argument.format(f=folder) for argument in arguments), code=2)
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04cut"])
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_damaged_embeddings_are_told(folder, tmp_path, content, suffix):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    result = run("--embeddings", path, "--trials", folder / "trials.txt", code=2)
    assert f"broken.{suffix}" in result.stderr and result.stderr.count("\n") == 1
