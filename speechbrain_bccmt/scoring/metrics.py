"""Error rates and costs of a verification system, from its target and non-target scores.

A trial is always accepted if its score reaches the threshold (score >= threshold), and trials of equal score are
accepted or rejected together. Scores may be lists, numpy arrays or torch tensors on any device; they are sorted once,
O(N log N), whatever their number.
"""

import math

import numpy as np

from speechbrain_bccmt.scoring.roc import (
    Counts,
    check_scores,
    count_below,
    det_curve,
    equal_error_point,
    hull_corners,
)

__all__ = [
    "act_dcf",
    "check_scores",
    "cllr",
    "cost_weights",
    "det_curve",
    "equal_error_rate",
    "min_cllr",
    "min_dcf",
    "miss_rate_at",
]


def equal_error_rate(
    target_scores, nontarget_scores, convex_hull: bool = False, weights=None
) -> tuple[float, float]:
    """Compute the equal error rate, where equal shares of target and non-target trials are decided wrongly.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    convex_hull : bool
        Whether to read it off the convex hull of the ROC, as the BOSARIS toolkit does: this is never above the plain
        EER, never above 0.5, and the maximum over all priors of the minimum error rate.
    weights : tuple of array_like, optional
        Weight of each target and each non-target trial, see `roc.count_below`.

    Returns
    -------
    eer : float
        In [0, 1], interpolated on the line between the two neighbouring points of the curve.
    threshold : float
        The score, among those of the curve, at which the two rates are closest.

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> equal_error_rate([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6])
    (0.25, 0.6)
    >>> eer, _ = equal_error_rate([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6], convex_hull=True)
    >>> round(eer, 4)
    0.1667
    """
    counts = count_below(target_scores, nontarget_scores, weights)
    if convex_hull:
        counts = counts_at_corners(counts)
    return eer_of_counts(counts)


def miss_rate_at(
    target_scores, nontarget_scores, false_alarm_rate: float, weights=None
) -> tuple[float, float]:
    """Compute the lowest miss rate (false rejection rate) with the false-alarm rate within a limit.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    false_alarm_rate : float
        The limit, in [0, 1]. A limit below one non-target trial allows no false alarm at all.
    weights : tuple of array_like, optional
        Weight of each target and each non-target trial, see `roc.count_below`.

    Returns
    -------
    miss_rate : float
        In [0, 1], at an actual threshold; nothing is interpolated.
    threshold : float
        Where it is reached; the lowest such score.

    Raises
    ------
    ValueError
        If a class has no score, a score is NaN or infinite, or the limit is not a rate.

    Examples
    --------
    >>> miss_rate_at([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6], false_alarm_rate=0.1)
    (0.5, 0.7)
    """
    return miss_rate_of_counts(count_below(target_scores, nontarget_scores, weights), false_alarm_rate)


def min_dcf(
    target_scores,
    nontarget_scores,
    p_target: float = 0.01,
    c_miss: float = 1,
    c_fa: float = 1,
    weights=None,
) -> tuple[float, float]:
    """Compute the minimum of the normalised detection cost over all thresholds.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    p_target : float
        Prior probability of a target trial, in (0, 1).
    c_miss : float
        Cost of a miss, positive.
    c_fa : float
        Cost of a false alarm, positive.
    weights : tuple of array_like, optional
        Weight of each target and each non-target trial, see `roc.count_below`.

    Returns
    -------
    cost : float
        In [0, 1]: divided by the cost of the better of accepting all and rejecting all (NIST's
        normalisation).
    threshold : float
        Where it is reached; the lowest such score.

    Raises
    ------
    ValueError
        If a class has no score, a score is NaN or infinite, or prior or costs are out of range.

    Examples
    --------
    >>> min_dcf([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6])
    (0.5, 0.7)
    """
    costs = cost_weights(p_target, c_miss, c_fa)
    return min_dcf_of_counts(count_below(target_scores, nontarget_scores, weights), costs)


def act_dcf(
    target_scores,
    nontarget_scores,
    p_target: float = 0.01,
    c_miss: float = 1,
    c_fa: float = 1,
    threshold: float | None = None,
    weights=None,
) -> float:
    """Compute the normalised detection cost at one given threshold.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    p_target : float
        Prior probability of a target trial, in (0, 1).
    c_miss : float
        Cost of a miss, positive.
    c_fa : float
        Cost of a false alarm, positive.
    threshold : float or None
        The threshold. None uses Bayes' threshold, ln(c_fa (1 - p_target) / (c_miss p_target)), which is optimal if the
        scores are natural-logarithm likelihood ratios.
    weights : tuple of array_like, optional
        Weight of each target and each non-target trial, see `roc.count_below`.

    Returns
    -------
    float
        The cost; 1 is the cost of rejecting all (or accepting all), and it can exceed 1.

    Raises
    ------
    ValueError
        If a class has no score, a score is NaN or infinite, or prior or costs are out of range.

    Examples
    --------
    >>> act_dcf([2.0, 5.0], [-1.0, 0.5], p_target=0.5)
    0.5
    """
    costs = cost_weights(p_target, c_miss, c_fa)
    threshold = bayes_threshold(p_target, c_miss, c_fa) if threshold is None else threshold
    return dcf_of_counts(count_below(target_scores, nontarget_scores, weights), costs, threshold)


def cllr(target_llrs, nontarget_llrs, weights=(None, None)) -> float:
    """Compute the cost of log-likelihood ratios over all operating points (Bruemmer and du Preez 2006).

    Parameters
    ----------
    target_llrs : array_like
        Natural-logarithm likelihood ratios of the target trials.
    nontarget_llrs : array_like
        Those of the non-target trials.
    weights : tuple of array_like
        Weight of each target and each non-target trial.

    Returns
    -------
    float
        In bits: 0 for perfect ratios, 1 for a system that always answers 0.

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> cllr([0.0], [0.0])
    1.0
    """
    targets = check_scores(target_llrs, "target")
    nontargets = check_scores(nontarget_llrs, "non-target")
    miss = np.average(np.logaddexp(0, -targets), weights=weights[0])
    false_alarm = np.average(np.logaddexp(0, nontargets), weights=weights[1])
    return float((miss + false_alarm) / (2 * math.log(2)))


def min_cllr(target_scores, nontarget_scores, weights=None) -> float:
    """Compute the lowest `cllr` that any order-preserving calibration of the scores could reach.

    The best such calibration is found by the pool-adjacent-violators algorithm (Bruemmer and du Preez 2006). The
    difference from `cllr` is the calibration loss. Finite even if the classes do not overlap.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials, of any scale.
    nontarget_scores : array_like
        Those of the non-target trials.
    weights : tuple of array_like, optional
        Weight of each target and each non-target trial, see `roc.count_below`.

    Returns
    -------
    float
        In bits, in [0, 1]: 0 where the classes do not overlap, 1 where no threshold separates them.

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> min_cllr([0.2, 0.3], [0.0, 0.1]), min_cllr([0.5], [0.5])
    (0.0, 1.0)
    """
    return min_cllr_of_counts(count_below(target_scores, nontarget_scores, weights))


# The metrics of trials already counted: the bootstrap counts the same scores thousands of times.


def eer_of_counts(counts: Counts) -> tuple[float, float]:
    """Compute `equal_error_rate` from counts."""
    eer, nearest = equal_error_point(counts.p_miss, counts.p_false_alarm)
    return eer, float(counts.thresholds[nearest])


def miss_rate_of_counts(counts: Counts, false_alarm_rate: float) -> tuple[float, float]:
    """Compute `miss_rate_at` from counts."""
    if not 0 <= false_alarm_rate <= 1:
        raise ValueError(f"false_alarm_rate is {false_alarm_rate}, expected a rate from 0 to 1")
    first = int(np.argmax(counts.p_false_alarm <= false_alarm_rate))
    return float(counts.p_miss[first]), float(counts.thresholds[first])


def min_dcf_of_counts(counts: Counts, costs: tuple[float, float]) -> tuple[float, float]:
    """Compute `min_dcf` from counts and `cost_weights`."""
    cost = costs[0] * counts.p_miss + costs[1] * counts.p_false_alarm
    best = int(np.argmin(cost))
    return float(cost[best]), float(counts.thresholds[best])


def dcf_of_counts(counts: Counts, costs: tuple[float, float], threshold: float) -> float:
    """Compute `act_dcf` from counts and `cost_weights`; the counts must hold the threshold or the next one above it."""
    place = min(int(np.searchsorted(counts.thresholds, threshold)), len(counts.thresholds) - 1)
    return float(costs[0] * counts.p_miss[place] + costs[1] * counts.p_false_alarm[place])


def min_cllr_of_counts(counts: Counts) -> float:
    """Compute `min_cllr` from counts."""
    targets, nontargets = np.diff(counts.targets_below), np.diff(counts.nontargets_below)
    some = targets + nontargets > 0
    targets, nontargets = targets[some], nontargets[some]
    corners = hull_corners(targets, nontargets)[:-1]
    targets, nontargets = np.add.reduceat(targets, corners), np.add.reduceat(nontargets, corners)
    # Every trial in a block has the ratio of the block's shares. A block of one class has an infinite ratio, which
    # costs that class nothing and has no trials of the other, so the sums need only the blocks of both classes.
    p_target, p_nontarget = targets / targets.sum(), nontargets / nontargets.sum()
    both = targets * nontargets > 0
    p_target, p_nontarget = p_target[both], p_nontarget[both]
    miss = np.sum(p_target * np.log1p(p_nontarget / p_target))
    false_alarm = np.sum(p_nontarget * np.log1p(p_target / p_nontarget))
    return float((miss + false_alarm) / (2 * math.log(2)))


def counts_at_corners(counts: Counts) -> Counts:
    """Keep the corners of the convex hull of the ROC."""
    targets, nontargets = np.diff(counts.targets_below), np.diff(counts.nontargets_below)
    some = np.append(targets + nontargets > 0, True)
    kept = Counts(*(axis[some] for axis in counts))
    corners = hull_corners(np.diff(kept.targets_below), np.diff(kept.nontargets_below))
    return Counts(*(axis[corners] for axis in kept))


def bayes_threshold(p_target: float, c_miss: float, c_fa: float) -> float:
    """Return the optimal threshold for natural-logarithm likelihood ratios."""
    return math.log(c_fa * (1 - p_target)) - math.log(c_miss * p_target)


def cost_weights(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    """Compute the costs of a miss rate and a false-alarm rate of 1, by NIST's normalisation; the lower one is 1.

    Raises
    ------
    ValueError
        If prior or costs are out of range.

    Examples
    --------
    >>> cost_weights(0.25, c_miss=1, c_fa=1)
    (1.0, 3.0)
    """
    if not 0 < p_target < 1:
        raise ValueError(f"p_target is {p_target}, expected a probability between 0 and 1, both excluded")
    if not (0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise ValueError(f"c_miss is {c_miss} and c_fa {c_fa}, expected positive costs")
    weight_miss, weight_fa = c_miss * p_target, c_fa * (1 - p_target)
    blind = min(weight_miss, weight_fa)
    return weight_miss / blind, weight_fa / blind
