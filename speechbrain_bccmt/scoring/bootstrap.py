"""Confidence intervals by bootstrap: how much error rates would vary with other speakers.

Trials are not independent: a speaker whose voice is hard to verify makes all of their trials hard. So speakers are
resampled, not trials: S of S speakers with replacement, and each trial counts as often as its speakers were drawn:

- same speaker on both sides: as often as that speaker;
- two speakers: the product of both, as each copy of one meets each copy of the other.

Two copies of one speaker never meet, as there are no trials of a speaker against a double. Drawing the speakers of both
sides is the vertex bootstrap of networks (Snijders and Borgatti 1999), whose product weights are those of the
pigeonhole bootstrap (Owen 2007). Wu, Martin, Greenberg and Kacker show for NIST's evaluations that trials of one
speaker depend on each other, and what ignoring it does to intervals. Combining these for speaker verification is our
reading.

Intervals are percentiles of the resampled figures. A minimum over thresholds or calibrations (minDCF, minCllr) is
fitted to the trials at hand: with few speakers it is too low, and in a resample too low again by as much. Its
percentiles are mirrored about the point (the basic bootstrap of Davison and Hinkley 1997), which removes this bias. In
simulations with 20, 50 and 100 speakers, the 95 % intervals missed the truth in 5 to 7 % of the runs for the EER, in
15, 7 and 8 % for minDCF (percentiles: 31, 16 and 9 %), and in 12, 10 and 5 % for minCllr (24, 21 and 13 %): with few
speakers, treat the latter two as too narrow. They cover other speakers with the same system, not another training or
another cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from speechbrain_bccmt.scoring.metrics import (
    bayes_threshold,
    cllr,
    cost_weights,
    dcf_of_counts,
    eer_of_counts,
    min_cllr_of_counts,
    min_dcf_of_counts,
    miss_rate_of_counts,
)
from speechbrain_bccmt.scoring.roc import Counts, check_scores, count_below

MEASURES = ("eer", "min_dcf", "act_dcf", "cllr", "min_cllr", "miss_rate")
_MINIMA = ("min_dcf", "min_cllr")
_SHOW_PROGRESS_FROM = 2e8  # trials to weigh, several seconds


class Interval(NamedTuple):
    """A figure on all trials, and the range it may have for other speakers.

    Attributes
    ----------
    point, low, high : float
        In the unit of the figure.
    """

    point: float
    low: float
    high: float


def confidence_intervals(
    scores,
    target,
    enrol_speaker,
    test_speaker,
    measures: Sequence[str] = ("eer", "min_dcf"),
    confidence: float = 0.95,
    **options,
) -> dict[str, Interval]:
    """Compute error rates with confidence intervals by bootstrap over speakers.

    Parameters
    ----------
    scores : array_like
        One score per trial, (M,); log-likelihood ratios for `act_dcf` and `cllr`.
    target : array_like of bool
        Which trials are target trials, (M,).
    enrol_speaker, test_speaker : array_like
        The speaker of each side of each trial, (M,) names or numbers; see `trial_speakers`.
    measures : sequence of str
        Any of `eer`, `min_dcf`, `act_dcf`, `cllr`, `min_cllr`, `miss_rate` (see `metrics`).
    confidence : float
        How often the intervals should contain the true figure, in (0, 1).
    **options
        `p_target`, `c_miss`, `c_fa`, `false_alarm_rate`, `n_resamples`, `seed`, `progress`: see `resample`.

    Returns
    -------
    dict of str to Interval
        By measure.

    Raises
    ------
    ValueError
        As `resample`, and if `confidence` is out of range.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> enrol, test = np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)
    >>> scores = generator.normal(2.0 * (enrol == test))
    >>> [round(rate, 2) for rate in confidence_intervals(scores, enrol == test, enrol, test)["eer"]]
    [0.23, 0.1, 0.29]
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1, such as 0.95")
    points, samples = resample(scores, target, enrol_speaker, test_speaker, measures, **options)
    intervals = {name: _interval(name, points[name], samples[name], confidence) for name in points}
    for name in _MINIMA:
        if name in intervals:  # mirroring can leave the range of the figure
            intervals[name] = Interval(*(min(max(value, 0.0), 1.0) for value in intervals[name]))
    return intervals


def difference_intervals(
    scores,
    other_scores,
    target,
    enrol_speaker,
    test_speaker,
    measures: Sequence[str] = ("eer", "min_dcf"),
    confidence: float = 0.95,
    **options,
) -> dict[str, Interval]:
    """Compute how much one system differs from another on the same trials, by paired resamples.

    Both get the same speakers in each resample, so an interval that excludes 0 is significant, even if their own
    intervals overlap.

    Parameters
    ----------
    scores, other_scores : array_like
        One score per trial from each system, (M,).
    target, enrol_speaker, test_speaker, measures, confidence, **options
        As for `confidence_intervals`.

    Returns
    -------
    dict of str to Interval
        Figure of `scores` minus that of `other_scores`, by measure.

    Raises
    ------
    ValueError
        As `confidence_intervals`.

    Examples
    --------
    >>> enrol, test = np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)
    >>> scores = np.random.default_rng(0).normal(2.0 * (enrol == test))
    >>> difference_intervals(scores, 3 * scores, enrol == test, enrol, test)["eer"]
    Interval(point=0.0, low=0.0, high=0.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a share between 0 and 1, such as 0.95")
    shared = target, enrol_speaker, test_speaker, measures
    points, samples = resample(scores, *shared, **options)
    other_points, other_samples = resample(other_scores, *shared, **options)
    return {
        name: _interval(
            name, points[name] - other_points[name], samples[name] - other_samples[name], confidence
        )
        for name in points
    }


def _interval(name: str, point: float, samples: np.ndarray, confidence: float) -> Interval:
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    if name in _MINIMA:
        low, high = 2 * point - high, 2 * point - low
    return Interval(point, float(low), float(high))


def resample(
    scores,
    target,
    enrol_speaker,
    test_speaker,
    measures: Sequence[str] = ("eer", "min_dcf"),
    p_target: float = 0.01,
    c_miss: float = 1,
    c_fa: float = 1,
    false_alarm_rate: float = 0.01,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compute figures on all trials, and on the trials of speakers drawn with replacement.

    Scores are sorted once. A resample then takes a few passes over the trials and no memory beyond theirs.
    Resamples without trials of both classes are drawn again.

    Parameters
    ----------
    scores, target, enrol_speaker, test_speaker, measures
        As for `confidence_intervals`.
    p_target, c_miss, c_fa : float
        For `min_dcf` and `act_dcf`.
    false_alarm_rate : float
        For `miss_rate`, see `metrics.miss_rate_at`.
    n_resamples : int
        How many resamples to draw.
    seed : int
        The same speakers, labels and seed give the same resamples, whatever the scores.
    progress : bool
        Whether to show a progress bar if it takes long.

    Returns
    -------
    points : dict of str to float
        By measure, on all trials.
    samples : dict of str to numpy.ndarray
        By measure, (n_resamples,).

    Raises
    ------
    ValueError
        If a class has no trial, a score is NaN or infinite, the lengths differ, a measure is unknown, an option is out
        of range, the two sides of a target trial have different speakers, or all trials have one speaker.
    """
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}, expected at least 1")
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise ValueError(f"no such measure as '{unknown[0]}': expected {', '.join(MEASURES)}")
    if not 0 <= false_alarm_rate <= 1:
        raise ValueError(f"false_alarm_rate is {false_alarm_rate}, expected a rate from 0 to 1")
    costs, bayes = cost_weights(p_target, c_miss, c_fa), bayes_threshold(p_target, c_miss, c_fa)
    trials = SortedTrials(scores, target, enrol_speaker, test_speaker, bayes)
    known = {
        "eer": lambda counts, weights: eer_of_counts(counts)[0],
        "min_dcf": lambda counts, weights: min_dcf_of_counts(counts, costs)[0],
        "act_dcf": lambda counts, weights: dcf_of_counts(counts, costs, bayes),
        "cllr": lambda counts, weights: cllr(*trials.scores, weights),
        "min_cllr": lambda counts, weights: min_cllr_of_counts(counts),
        "miss_rate": lambda counts, weights: miss_rate_of_counts(counts, false_alarm_rate)[0],
    }
    figures = {name: known[name] for name in measures}
    everyone = trials.weigh(np.ones(trials.n_speakers, dtype=np.int64))
    points = {name: float(figure(*everyone)) for name, figure in figures.items()}
    samples = {name: np.empty(n_resamples) for name in figures}
    generator = np.random.default_rng(seed)
    long = trials.n_trials * n_resamples >= _SHOW_PROGRESS_FROM
    for index in tqdm(range(n_resamples), desc="Bootstrap", unit="draw", disable=not (progress and long)):
        weighted = None
        while weighted is None:
            drawn = generator.integers(trials.n_speakers, size=trials.n_speakers)
            weighted = trials.weigh(np.bincount(drawn, minlength=trials.n_speakers))
        for name, figure in figures.items():
            samples[name][index] = figure(*weighted)
    return points, samples


class SortedTrials:
    """Trials of each class by ascending score, with the speakers whose multiplicities give their weights."""

    def __init__(self, scores, target, enrol_speaker, test_speaker, threshold: float):
        target = np.asarray(target, dtype=bool).reshape(-1)
        scores = np.asarray(scores.detach().cpu() if hasattr(scores, "detach") else scores).reshape(-1)
        enrol_speaker, test_speaker = np.ravel(enrol_speaker), np.ravel(test_speaker)
        lengths = [len(column) for column in (scores, target, enrol_speaker, test_speaker)]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"there are {lengths[0]} scores, {lengths[1]} labels, {lengths[2]} enrolment and {lengths[3]} test "
                "speakers: expected one of each a trial"
            )
        names, code = np.unique(np.concatenate([enrol_speaker, test_speaker]), return_inverse=True)
        first, second = np.split(code.astype(np.int32), 2)
        wrong = np.flatnonzero(target & (first != second))
        if wrong.size:
            raise ValueError(
                f"{wrong.size} target trials have two speakers, first number {wrong[0]}: "
                f"{enrol_speaker[wrong[0]]} and {test_speaker[wrong[0]]}. Is the speaker of each utterance right?"
            )
        if len(names) == 1:
            raise ValueError(f"all trials are by one speaker, {names[0]}: nothing to draw from")
        self.n_speakers, self.n_trials = len(names), len(target)
        second[first == second] = len(names)  # a stand-in that always counts as drawn once
        self.sides, self.scores = [], []
        for kind, chosen in (("target", target), ("non-target", ~target)):
            values = check_scores(scores[chosen], kind)
            order = np.argsort(values)
            self.scores.append(values[order])
            one_speaker = (second[chosen] == len(names)).all()
            self.sides.append((first[chosen][order], None if one_speaker else second[chosen][order]))
        self.thresholds, *self.edges = self._edges(threshold)

    def _edges(self, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the thresholds that matter whatever the weights, and the trials of each class below them.

        Within a run of one class the curve is a straight line along an axis, so only its ends matter, plus the first
        threshold at or above `threshold`.
        """
        counts = count_below(*self.scores)
        is_target, is_nontarget = (np.diff(side) > 0 for side in counts[1:])
        both = is_target & is_nontarget
        inside = (is_target[1:] == is_target[:-1]) & ~both[1:] & ~both[:-1]
        chosen = np.concatenate([[True], ~inside, [True]])
        chosen[min(np.searchsorted(counts.thresholds, threshold), len(chosen) - 1)] = True
        return tuple(axis[chosen] for axis in counts)

    def weigh(self, multiplicity: np.ndarray) -> tuple[Counts, list[np.ndarray]] | None:
        """Count each trial as often as its speakers were drawn; return None if a class has no trials left.

        Returns the counts at the thresholds that matter, and the weights of the trials of each class by score.
        """
        multiplicity = np.append(multiplicity, 1)
        below, weights = [], []
        for (first, second), edge in zip(self.sides, self.edges, strict=True):
            weight = multiplicity[first]
            if second is not None:
                weight *= multiplicity[second]
            total = np.zeros(len(weight) + 1, dtype=np.int64)
            np.cumsum(weight, out=total[1:])
            if not total[-1]:
                return None
            below.append(total[edge])
            weights.append(weight)
        return Counts(self.thresholds, *below), weights
