"""Error rates of trials that count several times, for many weightings of the same scores.

Scores are sorted once. Each weighting then takes a few passes over the trials, O(N), as it only changes how many
trials of each class lie below a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from speechbrain_bccmt.scoring.metrics import cost_weights, min_cllr_of_counts
from speechbrain_bccmt.scoring.roc import check_scores, equal_error_point

MEASURES = ("eer", "min_dcf", "act_dcf", "cllr", "min_cllr", "miss_rate")


class Weighted(NamedTuple):
    """Trials counted as often as drawn: by class, cumulative sums from 0 over all its trials by score."""

    targets: np.ndarray
    nontargets: np.ndarray


class SortedTrials:
    """Trials of each class by ascending score, with the speakers whose multiplicities give their weights."""

    def __init__(self, scores, target, enrol_speaker, test_speaker):
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
        second[first == second] = len(names)  # who counts as drawn once
        self.sides, self.scores = [], []
        for kind, chosen in (("target", target), ("non-target", ~target)):
            values = check_scores(scores[chosen], kind)
            order = np.argsort(values)
            self.scores.append(values[order])
            one_speaker = (second[chosen] == len(names)).all()
            self.sides.append((first[chosen][order], None if one_speaker else second[chosen][order]))
        self.edges = self._edges()

    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Find the thresholds that matter whatever the weights, as numbers of trials of each class below.

        Within a run of one class the curve is a straight line along an axis, so only its ends matter.
        """
        targets, nontargets = self.scores
        thresholds = np.union1d(targets, nontargets)
        below = [np.append(np.searchsorted(side, thresholds), len(side)) for side in self.scores]
        is_target, is_nontarget = (np.diff(side) > 0 for side in below)
        both = is_target & is_nontarget
        inside = (is_target[1:] == is_target[:-1]) & ~both[1:] & ~both[:-1]
        chosen = np.concatenate([[True], ~inside, [True]])
        return below[0][chosen], below[1][chosen]

    def weigh(self, multiplicity: np.ndarray) -> Weighted | None:
        """Count each trial as often as its speakers were drawn; None where a class has no trial left."""
        multiplicity = np.append(multiplicity, 1)
        sums = []
        for first, second in self.sides:
            weight = multiplicity[first]
            if second is not None:
                weight *= multiplicity[second]
            total = np.zeros(len(weight) + 1, dtype=np.int64)
            np.cumsum(weight, out=total[1:])
            if not total[-1]:
                return None
            sums.append(total)
        return Weighted(*sums)

    def rates(self, weighted: Weighted) -> tuple[np.ndarray, np.ndarray]:
        """Return miss and false-alarm rates at the thresholds that matter."""
        misses, passed = weighted.targets[self.edges[0]], weighted.nontargets[self.edges[1]]
        return misses / misses[-1], (passed[-1] - passed) / passed[-1]


def figures_of(
    trials: SortedTrials, measures: Sequence[str], p_target, c_miss, c_fa, false_alarm_rate
) -> dict[str, Callable[[Weighted], float]]:
    """Return the function of each measure; each equals its namesake in `metrics` on replicated trials."""
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise ValueError(f"no such measure as '{unknown[0]}': expected {', '.join(MEASURES)}")
    if not 0 <= false_alarm_rate <= 1:
        raise ValueError(f"false_alarm_rate is {false_alarm_rate}, expected a rate from 0 to 1")
    weight_miss, weight_fa = cost_weights(p_target, c_miss, c_fa)
    bayes = math.log(c_fa * (1 - p_target)) - math.log(c_miss * p_target)
    below = [np.searchsorted(side, bayes) for side in trials.scores]
    costs = []
    if "cllr" in measures:
        costs = [np.logaddexp(0, sign * llr) for sign, llr in zip((-1, 1), trials.scores, strict=True)]

    def min_dcf(weighted):
        p_miss, p_false_alarm = trials.rates(weighted)
        return np.min(weight_miss * p_miss + weight_fa * p_false_alarm)

    def act_dcf(weighted):
        missed, passed = (side[place] / side[-1] for side, place in zip(weighted, below, strict=True))
        return weight_miss * missed + weight_fa * (1 - passed)

    def cllr(weighted):
        means = (np.diff(side) @ cost / side[-1] for side, cost in zip(weighted, costs, strict=True))
        return sum(means) / (2 * math.log(2))

    def min_cllr(weighted):
        counts = [np.diff(side[edge]) for side, edge in zip(weighted, trials.edges, strict=True)]
        some = np.add(*counts) > 0
        return min_cllr_of_counts(counts[0][some], counts[1][some])

    def miss_rate(weighted):
        p_miss, p_false_alarm = trials.rates(weighted)
        return p_miss[np.argmax(p_false_alarm <= false_alarm_rate)]

    known = {
        "eer": lambda weighted: equal_error_point(*trials.rates(weighted))[0],
        "min_dcf": min_dcf,
        "act_dcf": act_dcf,
        "cllr": cllr,
        "min_cllr": min_cllr,
        "miss_rate": miss_rate,
    }
    return {name: known[name] for name in measures}
