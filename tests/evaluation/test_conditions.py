"""Which trials are of which condition, and the figures of each."""

import numpy as np
import pytest

from speechbrain_bccmt.evaluation.conditions import (
    format_condition_table,
    read_conditions,
    summarise_conditions,
)
from speechbrain_bccmt.scoring import equal_error_rate
from speechbrain_bccmt.trials.trial_list import EnrolmentModel, Trials

TRIALS = Trials(
    ["a/1", "a/2", "b/1", "b/2"],
    np.array([0, 0, 2, 2]),
    np.array([1, 2, 3, 1]),
    np.array([True, False, True, False]),
)
CSV = (
    "gender,test,enrol,label,trial type\n"
    "f,a/2.wav,a/1.wav,1,same\n"
    "m,b/2.wav,b/1.wav,1,same\n"
    "f,b/1.wav,a/1.wav,0,cross gender\n"
    "x,z/1.wav,a/1.wav,0,not asked for\n"
    "m,a/2.wav,b/1.wav,0,cross gender\n"
)


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "key.txt").write_text(text)
        return tmp_path / "key.txt"

    return write


def test_values_select_trials_in_the_order_of_the_list(write):
    conditions = read_conditions(write(CSV), TRIALS)
    assert {name: list(values) for name, values in conditions.items()} == {
        "gender": ["f", "m"],
        "trial type": ["cross gender", "same"],
    }
    assert conditions["gender"]["f"].tolist() == [True, True, False, False]
    assert conditions["trial type"]["same"].tolist() == [True, False, True, False]


def test_white_space_models_and_repeats(write):
    models = [EnrolmentModel("m1", (0,)), EnrolmentModel("m2", (1,))]
    trials = Trials(["a/1", "a/2"], np.array([1, 0]), np.array([1, 1]), np.array([True, False]), models)
    path = write("\nmodel test noise\n\nm1 a/2.wav no\nm2 a/2.wav yes\nm1 a/2.wav no\n")
    assert read_conditions(path, trials)["noise"]["yes"].tolist() == [True, False]


def test_numbers_are_sorted_or_divided(write):
    path = write("enrol test s\na/1 a/2 10\na/1 b/1 9\nb/1 b/2 2.5\nb/1 a/2 5\n")
    assert list(read_conditions(path, TRIALS)["s"]) == ["2.5", "5", "9", "10"]
    divided = read_conditions(path, TRIALS, {"s": [5, 10, 20]})["s"]
    assert {name: mask.tolist() for name, mask in divided.items()} == {
        "below 5": [False, False, True, False],
        "5 to 10": [False, True, False, True],
        "10 to 20": [True, False, False, False],
    }
    n_trials = 200
    ids = [f"a/{i}" for i in range(n_trials + 1)]
    trials = Trials(ids, np.zeros(n_trials, int), np.arange(1, n_trials + 1), np.ones(n_trials, bool))
    path = write("enrol test s\n" + "".join(f"a/0 a/{i} {i / 100}\n" for i in range(1, n_trials + 1)))
    assert [mask.sum() for mask in read_conditions(path, trials)["s"].values()] == [50] * 4


@pytest.mark.parametrize(
    "text, options, message",
    [
        (CSV.replace("m,b/2.wav", "m,b/9.wav"), {}, "lacks 1 of 4 trials, the first number 3: b/1 b/2"),
        (CSV.replace("m,a/2.wav", "m,a/9.wav"), {}, "lacks 1 of 4 trials, the first number 4: b/1 a/2"),
        (
            CSV + "\n" * 9000 + "m,a/2.wav,a/1.wav,1,same\n",
            {},
            "key.txt:9007: the trial of line 2 with another value",
        ),
        (CSV + "m,a/2.wav,a/1.wav,1,same\n", {}, "key.txt:7: the trial of line 2 with another value"),
        (CSV + "m,a/2.wav\n", {}, "key.txt:7: expected `gender test enrol label trial type`: m,a/2.wav"),
        (
            CSV,
            {"edges": {"seconds": [3]}},
            "edges are given for seconds, but the conditions .* gender, trial type",
        ),
        (CSV, {"edges": {"gender": [3]}}, "condition gender .* not all its values are numbers"),
        ("a/1 a/2 f\n", {}, "key.txt:1: expected a header `enrol test` and columns of conditions"),
        ("enrol test\n", {}, "expected a header"),
        ("", {}, "expected a header"),
    ],
)
def test_bad_keys(write, text, options, message):
    with pytest.raises(ValueError, match=message):
        read_conditions(write(text), TRIALS, **options)


def test_bad_keys_of_other_kinds(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="no key file"):
        read_conditions(tmp_path / "absent", TRIALS)
    ids = [f"a/{i}" for i in range(41)]
    trials = Trials(ids, np.zeros(40, int), np.arange(1, 41), np.ones(40, bool))
    path = write("enrol test who\n" + "".join(f"a/0 a/{i} n{i}\n" for i in range(1, 41)))
    with pytest.raises(ValueError, match="the condition who .* has 40 values, such as n1: at most 30"):
        read_conditions(path, trials)


def test_summary_of_each_and_what_lacks_a_class(write):
    scores = np.array([0.5, 0.6, 0.9, 0.1])
    table = summarise_conditions(scores, TRIALS.target, read_conditions(write(CSV), TRIALS), p_target=0.5)
    assert list(table) == [
        ("pooled", ""),
        ("gender", "f"),
        ("gender", "m"),
        ("trial type", "cross gender"),
        ("trial type", "same"),
    ]
    assert table["gender", "f"]["eer"] == 1 and table["gender", "m"]["eer"] == 0
    assert table["pooled", ""]["eer"] == equal_error_rate([0.5, 0.9], [0.6, 0.1])[0]
    assert table["trial type", "same"] == {"eer": None, "min_dcf": None, "n_target": 2, "n_nontarget": 0}
    lines = format_condition_table(table).splitlines()
    assert lines[-1].endswith("no non-target trials") and lines[-2].endswith("no target trials")
    with pytest.raises(ValueError, match=r"gender f covers \(3,\) trials, but there are \(4,\) scores"):
        summarise_conditions(scores, TRIALS.target, {"gender": {"f": np.ones(3, bool)}})
