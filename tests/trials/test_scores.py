"""Score files of all layouts, and what is wrong with them."""

import gzip
import logging

import numpy as np
import pytest

from speechbrain_bccmt.evaluation.summary import write_scores
from speechbrain_bccmt.trials.read import EnrolmentModel, Trials, read_trials
from speechbrain_bccmt.trials.scores import read_scores

LIST = "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n0 a/2.wav b/1.wav\n"
SCORES, TARGET = [0.75, -1.5, 2e-3], [True, False, False]
LAYOUTS = {
    "enrol test label score": "a/1 a/2 1 0.75\na/1 b/1 0 -1.5\na/2 b/1 0 2e-3\n",
    "enrol test score label": (
        "a/1.wav a/2.wav 0.75 target\na/1.wav b/1.wav -1.5 nontarget\na/2.wav b/1.wav 2e-3 nontarget\n"
    ),
    "label enrol test score": "1 a/1 a/2 0.75\n0 a/1 b/1 -1.5\n0 a/2 b/1 2e-3\n",
    "tabs, Windows, blanks": "\n a/1\ta/2\t1\t0.75\r\n\r\na/1\tb/1\t0\t-1.5\r\na/2\tb/1\t0\t2e-3",
    "CSV": "label,score,note,enrol,test\n1,0.75,x,a/1.wav,a/2\n0,-1.5,,a/1.wav,b/1\n0,2e-3,,a/2.wav,b/1\n",
    "header": "Enroll_ID Test_ID LLR Target\na/1 a/2 0.75 1\na/1 b/1 -1.5 0\na/2 b/1 2e-3 0\n",
}


@pytest.fixture
def write(tmp_path):
    def write(text, name="scores.txt"):
        (tmp_path / name).write_bytes(text.encode())
        return tmp_path / name

    return write


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts_with_labels(write, text):
    path = write(text)
    scored = read_scores(path)
    assert scored.scores.tolist() == SCORES and scored.target.tolist() == TARGET
    assert scored.trials.ids == ["a/1", "a/2", "b/1"] and len(scored) == 3
    assert scored.trials.enrol.tolist() == [0, 0, 1] and scored.trials.test.tolist() == [1, 2, 2]
    joined = read_scores(path, write(LIST, "trials.txt"))
    assert joined.scores.tolist() == SCORES and joined.trials.test.tolist() == [1, 2, 2]


def test_labels_from_a_list(write):
    trials = read_trials(write(LIST, "trials.txt"))
    path = write("b/1 a/1 9\na/2 b/1 2e-3\na/1 a/2 0.75\na/1 b/1 -1.5\n")
    scored = read_scores(path, trials)
    assert scored.scores.tolist() == SCORES and scored.target.tolist() == TARGET and scored.trials is trials
    with pytest.raises(ValueError, match="scores.txt has no labels: give the trial list"):
        read_scores(path)
    assert read_scores(write("0.75\n-1.5\n2e-3\n"), trials).scores.tolist() == SCORES
    with pytest.raises(ValueError, match="2 scores without names, but the trial list has 3 trials"):
        read_scores(write("0.75\n-1.5\n"), trials)


def test_labels_and_scores_only(write):
    for text in ("1 0.75\n0 -1.5\n0 2e-3\n", "0.75 target\n-1.5 nontarget\n2e-3 nontarget\n"):
        scored = read_scores(write(text))
        assert scored.scores.tolist() == SCORES and scored.target.tolist() == TARGET and scored.trials is None


def test_given_layout(write):
    path = write("x 0.75 a/1 a/2 1\nx -1.5 a/1 b/1 0\n")
    assert read_scores(path, layout="- score enrol test label").scores.tolist() == SCORES[:2]
    for layout in ("enrol test", "enrol test points score"):
        with pytest.raises(ValueError, match="the layout `.*` is none"):
            read_scores(path, layout=layout)
    with pytest.raises(ValueError, match="names one side of the trials only"):
        read_scores(path, layout="enrol score - - label")
    path = write("a/1 a/2 1\na/1 b/1 0\na/2 b/1 0\n")
    with pytest.raises(ValueError, match="looks like a trial list"):
        read_scores(path)
    trials = write(LIST, "trials.txt")
    assert read_scores(path, trials, layout="enrol test score").scores.tolist() == [1, 0, 0]


def test_models_and_trial_types(write):
    trials = Trials(
        ["a/1", "a/2"], np.array([0]), np.array([1]), np.array([True]), [EnrolmentModel("m.wav", (0,))]
    )
    assert read_scores(write("m.wav a/2.wav 0.5\n"), trials).scores.tolist() == [0.5]
    scored = read_scores(write("m a tc 0.5\nm b tw 0.1\nm c impostor-correct 0.0\n"))
    assert scored.target.tolist() == [True, False, False]
    assert scored.trials.is_type("target-wrong").tolist() == [False, True, False]


def test_what_our_own_recipe_writes(write, tmp_path):
    trials = read_trials(write(LIST, "trials.txt"))
    scores = np.random.default_rng(0).normal(size=3).astype(np.float32)
    write_scores(tmp_path / "scores.txt", trials, scores)
    with gzip.open(tmp_path / "scores.txt.gz", "wb") as file:
        file.write((tmp_path / "scores.txt").read_bytes())
    for name in ("scores.txt", "scores.txt.gz"):
        assert (read_scores(tmp_path / name).scores.astype(np.float32) == scores).all()


def test_repeats_and_strangers_are_told(write, caplog):
    caplog.set_level(logging.WARNING)
    scored = read_scores(write("a/1 a/2 1 0.75\na/1 b/1 0 -1.5\na/1.wav a/2 1 0.750\n"))
    assert scored.scores.tolist() == SCORES[:2]
    assert "scores.txt:3: the trial of line 1 again" in caplog.text
    caplog.clear()
    lines = LAYOUTS["enrol test label score"] + "a/1 c/9 0 0.4\n"
    assert len(read_scores(write(lines), write(LIST, "trials.txt"))) == 3
    assert (
        "1 scores of trials that are not in the list" in caplog.text
        and "scores.txt:4: a/1 c/9" in caplog.text
    )


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "a a 1 0.75\na b 0 nan\n",
            r"1 malformed.*\n.*scores.txt:2: the score is nan, expected a finite number",
        ),
        ("a a 1 0.75\n\na b 0 -inf\n", r"scores.txt:3: the score is -inf"),
        ("a a 1 0.75\na b 0 high\n", r"scores.txt:2: the score is high"),
        ("a a 1 0.75\na b 2 0.5\n", r"scores.txt:2: the label is 2, expected target or nontarget"),
        (
            "a a 1 0.75\na b 0.5\nb 1\na c 0 0.1\n",
            r"2 malformed.*\n.*:2: expected `enrol test label score`: a b 0.5\n.*:3:",
        ),
        (
            "a a 1 0.75\na a 1 0.5\n",
            r"1 trials are scored twice.*\n.*:2: the trial of line 1 again, with another",
        ),
        ("a a 1 0.75\na a 0 0.75\n", r"scores.txt:2: the trial of line 1 again, with another score or label"),
        ("a a b c d\n", r"scores.txt:1: no layout of score files fits `a a b c d`"),
        ("1 a/1.wav a/2.wav\n", "no layout of score files fits"),
        ("\n \n", "is empty"),
        ("enrol,test,label,score\n", "holds no scores under its header"),
        ("\x00\x1f\x8b", "no layout"),
    ],
)
def test_bad_files(write, text, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        read_scores(write(text))


def test_bad_joins(write, tmp_path):
    trials = write(LIST, "trials.txt")
    with pytest.raises(
        ValueError, match=r"no score for 2 of 3 trials:\ntrial 2: a/1 b/1\ntrial 3: a/2 b/1\nThe scores"
    ):
        read_scores(write("a/1 a/2 0.75\nb/1 a/1 0.1\n"), trials)
    with pytest.raises(ValueError, match=r"1 labels .* differ from the list's:\n.*scores.txt:2: "):
        read_scores(write(LAYOUTS["enrol test label score"].replace("0 -1.5", "1 -1.5")), trials)
    with pytest.raises(FileNotFoundError, match="no score file at"):
        read_scores(tmp_path / "absent.txt")
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(LAYOUTS["CSV"].encode() * 50)[:-12])
    with pytest.raises(ValueError, match="cut.gz is cut off"):
        read_scores(path)
    path.write_bytes(b"a b 0.5 \xff\n")
    with pytest.raises(ValueError, match="is not a text file"):
        read_scores(path)


def test_many_blocks(write):
    generator = np.random.default_rng(1)
    n_lines = 30_000
    scores = generator.normal(size=n_lines).round(4)
    lines = [f"s{i % 7}/{i} s{i % 5}/{i} {scores[i]}\n" for i in range(n_lines)]
    listed = write(
        "".join(f"{int(i % 7 == i % 5)} s{i % 7}/{i} s{i % 5}/{i}\n" for i in range(n_lines)), "trials.txt"
    )
    order = generator.permutation(n_lines)
    assert (read_scores(write("".join(lines[i] for i in order)), listed).scores == scores).all()
    lines[20_000] = "s1 0.5\n"
    with pytest.raises(ValueError, match="scores.txt:20001: expected `enrol test score`"):
        read_scores(write("".join(lines)), listed)
