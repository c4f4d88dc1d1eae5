"""Bootstrap over speakers: against trials repeated in full, and by how often its intervals hold the truth."""

import numpy as np
import pytest
import torch

from speechbrain_bccmt.scoring import act_dcf, cllr, equal_error_rate, min_cllr, min_dcf, miss_rate_at
from speechbrain_bccmt.scoring.bootstrap import (
    MEASURES,
    SortedTrials,
    confidence_intervals,
    difference_intervals,
    resample,
)
from speechbrain_bccmt.trials.trial_list import EnrolmentModel, Trials, trial_speakers


def draw_system(generator, n_speakers, per_speaker=4, spread=0.7, decimals=6):
    """Return scores of all pairs of speakers; `spread` sets how much speakers differ in difficulty."""
    own, other = generator.normal(0, spread, n_speakers), generator.normal(0, spread / 2, n_speakers)
    enrol, test = np.divmod(np.arange(n_speakers**2), n_speakers)
    enrol, test = (
        np.concatenate([np.tile(side[enrol == test], per_speaker), side]) for side in (enrol, test)
    )
    target = enrol == test
    scores = generator.normal(size=len(enrol)) + np.where(target, 3 + own[enrol], other[enrol] + other[test])
    return scores.round(decimals), target, enrol, test


def direct(name, targets, nontargets):
    return {
        "eer": lambda: equal_error_rate(targets, nontargets)[0],
        "min_dcf": lambda: min_dcf(targets, nontargets, 0.05, 2, 1)[0],
        "act_dcf": lambda: act_dcf(targets, nontargets, 0.05, 2, 1),
        "cllr": lambda: cllr(targets, nontargets),
        "min_cllr": lambda: min_cllr(targets, nontargets),
        "miss_rate": lambda: miss_rate_at(targets, nontargets, 0.03)[0],
    }[name]()


@pytest.mark.parametrize("decimals", [6, 1, 0])
def test_each_measure_equals_that_of_repeated_trials(decimals):
    generator = np.random.default_rng(decimals)
    scores, target, enrol, test = draw_system(generator, 12, decimals=decimals)
    target &= ~((enrol == 3) & (generator.random(len(enrol)) < 0.5))  # one speaker, but the wrong phrase
    options = {"p_target": 0.05, "c_miss": 2, "false_alarm_rate": 0.03}
    points, samples = resample(scores, target, enrol, test, MEASURES, n_resamples=20, seed=5, **options)
    drawing = np.random.default_rng(5)
    for index in range(20):
        count = np.bincount(drawing.integers(12, size=12), minlength=12)
        repeats = np.where(enrol == test, count[enrol], count[enrol] * count[test])
        copies, is_target = np.repeat(scores, repeats), np.repeat(target, repeats)
        for name in MEASURES:
            expected = direct(name, copies[is_target], copies[~is_target])
            assert samples[name][index] == pytest.approx(expected, abs=1e-12), name
    for name in MEASURES:
        assert points[name] == pytest.approx(direct(name, scores[target], scores[~target]), abs=1e-12)


def test_intervals_hold_the_true_error_rate():
    generator = np.random.default_rng(1)
    n_true = 400_000
    truth = equal_error_rate(
        generator.normal(3, np.hypot(1, 0.7), n_true), generator.normal(0, np.sqrt(1 + 0.7**2 / 2), n_true)
    )[0]
    held_by_speakers = held_by_trials = 0
    for run in range(60):
        scores, target, enrol, test = draw_system(generator, 30, per_speaker=12)
        interval = confidence_intervals(scores, target, enrol, test, ["eer"], n_resamples=150, seed=run)[
            "eer"
        ]
        held_by_speakers += interval.low <= truth <= interval.high
        targets, nontargets = scores[target], scores[~target]
        rates = [
            equal_error_rate(
                generator.choice(targets, targets.size), generator.choice(nontargets, nontargets.size)
            )[0]
            for _ in range(100)
        ]
        low, high = np.quantile(rates, (0.025, 0.975))
        held_by_trials += low <= truth <= high
    assert held_by_speakers >= 52  # of 60; 57 expected, fewer than 52 once in 160 runs of exact intervals
    assert held_by_trials <= 48


def test_speakers_who_differ_widen_the_interval():
    scores, target, enrol, test = draw_system(np.random.default_rng(2), 20, per_speaker=50, spread=1.5)
    scores -= 4.5  # to where a fixed threshold misses a third of the targets
    options = {"measures": ["act_dcf"], "p_target": 0.9, "n_resamples": 300}
    by_speaker = confidence_intervals(scores, target, enrol, test, **options)["act_dcf"]
    # As if each trial had its own speakers: all trials are then independent.
    own = np.arange(len(scores))
    strangers = own, np.where(target, own, own + len(own))
    by_trial = confidence_intervals(scores, target, *strangers, **options)["act_dcf"]
    assert by_speaker.high - by_speaker.low > 3 * (by_trial.high - by_trial.low)
    assert by_speaker.point == pytest.approx(by_trial.point)


def test_only_speakers_labels_and_seed_decide():
    generator = np.random.default_rng(3)
    scores, target, enrol, test = draw_system(generator, 10)
    first = confidence_intervals(scores, target, enrol, test, n_resamples=50, seed=4)
    order = generator.permutation(len(scores))
    names = np.array([f"speaker{number}" for number in range(10)])
    moved = (torch.tensor(scores)[order], target[order], names[enrol][order], names[test][order])
    assert confidence_intervals(*moved, n_resamples=50, seed=4) == first
    assert confidence_intervals(scores, target, enrol, test, n_resamples=50, seed=5) != first
    assert all(0 <= interval.low <= interval.high <= 1 for interval in first.values())


def test_paired_differences_are_sharper():
    generator = np.random.default_rng(6)
    scores, target, enrol, test = draw_system(generator, 25, per_speaker=20)
    better = scores + np.where(target, 0.4, 0) + generator.normal(0, 0.05, len(scores))
    columns = target, enrol, test, ["eer"]
    difference = difference_intervals(better, scores, *columns, n_resamples=300)["eer"]
    assert difference.point < 0 and difference.high < 0
    single = confidence_intervals(scores, *columns, n_resamples=300)["eer"]
    assert difference.high - difference.low < (single.high - single.low) / 2


def test_perfect_and_tiny_lists():
    scores, enrol, test = [2.0, 1.5, 0.0], ["a", "b", "a"], ["a", "b", "b"]
    intervals = confidence_intervals(scores, [True, True, False], enrol, test, MEASURES, n_resamples=30)
    assert all(intervals[name] == (0, 0, 0) for name in ("eer", "min_dcf", "min_cllr", "miss_rate"))


def test_refusals():
    ok = [1.0, 0.0], [True, False], ["a", "a"], ["a", "b"]
    with pytest.raises(ValueError, match="no target scores"):
        resample([1.0, 0.0], [False, False], *ok[2:])
    with pytest.raises(ValueError, match="non-target scores are NaN"):
        resample([1.0, np.nan], *ok[1:])
    with pytest.raises(ValueError, match="2 target trials have two speakers, first number 0: a and b"):
        resample([1.0, 0.5, 0], [True, True, False], ["a", "a", "b"], ["b", "c", "c"])
    with pytest.raises(ValueError, match="all trials are by one speaker, a"):
        resample(*ok[:2], ["a", "a"], ["a", "a"])
    with pytest.raises(ValueError, match="2 scores, 2 labels, 1 enrolment and 2 test"):
        resample(*ok[:2], ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no such measure as 'auc'"):
        resample(*ok, ["auc"])
    with pytest.raises(ValueError, match="n_resamples is 0"):
        resample(*ok, n_resamples=0)
    for function in (
        confidence_intervals,
        lambda scores, *rest, **more: difference_intervals(scores, scores, *rest, **more),
    ):
        with pytest.raises(ValueError, match="confidence is 95"):
            function(*ok, confidence=95)


def test_speakers_of_trials():
    models = [EnrolmentModel("m2", (2,)), EnrolmentModel("m1", (0, 1))]
    trials = Trials(
        ["a/1", "a/2", "b/1"], np.array([0, 1]), np.array([0, 0]), np.array([False, True]), models
    )
    enrol, test = trial_speakers(trials)
    assert (enrol == test).tolist() == [False, True]
    enrol, test = trial_speakers(trials, {"a/1": "x", "a/2": "x", "b/1": "x"})
    assert (enrol == test).all()
    with pytest.raises(ValueError, match="no speaker is known of 2 utterances of the trials, such as a/2"):
        trial_speakers(trials, {"a/1": "x"})


def test_few_thresholds_matter():
    scores, target, enrol, test = draw_system(np.random.default_rng(8), 30)
    trials = SortedTrials(scores, target, enrol, test, 0.0)
    assert len(trials.edges[0]) < len(scores) / 4
