"""Error rates and costs of a verification system, from its target and non-target scores.

Everywhere a trial is accepted if its score reaches the threshold (score >= threshold), and trials of equal
score are accepted or rejected together. Scores come as lists, numpy arrays or torch tensors of any device;
all sizes are sorted once, O(N log N).
"""

import math

import numpy as np

from speechbrain_bccmt.scoring.roc import (
    check_scores,
    count_below,
    det_curve,
    equal_error_point,
    hull_corners,
    hull_curve,
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


def equal_error_rate(target_scores, nontarget_scores, convex_hull: bool = False) -> tuple[float, float]:
    """Compute the equal error rate, where as many target as non-target trials are decided wrongly.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    convex_hull : bool
        Whether to read it off the convex hull of the ROC, as the BOSARIS toolkit does: never above the other,
        never above 0.5, and the highest of the minimum error rates over all priors.

    Returns
    -------
    eer : float
        In [0, 1], interpolated on the line between the two neighbouring points of the curve.
    threshold : float
        The score, among those of the curve, at which both rates are nearest to each other.

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
    curve = hull_curve if convex_hull else det_curve
    p_miss, p_false_alarm, thresholds = curve(target_scores, nontarget_scores)
    eer, nearest = equal_error_point(p_miss, p_false_alarm)
    return eer, float(thresholds[nearest])


def miss_rate_at(target_scores, nontarget_scores, false_alarm_rate: float) -> tuple[float, float]:
    """Compute the lowest miss rate (false rejection rate) whose false-alarm rate stays within a limit.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    false_alarm_rate : float
        The limit, in [0, 1]. A limit below one non-target trial allows no false alarm at all.

    Returns
    -------
    miss_rate : float
        In [0, 1], at a threshold that exists; nothing is interpolated.
    threshold : float
        Where it is reached; the lowest such score.

    Raises
    ------
    ValueError
        If a class has no score, a score is NaN or infinite, or the limit is no rate.

    Examples
    --------
    >>> miss_rate_at([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6], false_alarm_rate=0.1)
    (0.5, 0.7)
    """
    if not 0 <= false_alarm_rate <= 1:
        raise ValueError(f"false_alarm_rate is {false_alarm_rate}, expected a rate from 0 to 1")
    p_miss, p_false_alarm, thresholds = det_curve(target_scores, nontarget_scores)
    first = int(np.argmax(p_false_alarm <= false_alarm_rate))
    return float(p_miss[first]), float(thresholds[first])


def min_dcf(
    target_scores, nontarget_scores, p_target: float = 0.01, c_miss: float = 1, c_fa: float = 1
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
    weight_miss, weight_fa = cost_weights(p_target, c_miss, c_fa)
    p_miss, p_false_alarm, thresholds = det_curve(target_scores, nontarget_scores)
    cost = weight_miss * p_miss + weight_fa * p_false_alarm
    best = int(np.argmin(cost))
    return float(cost[best]), float(thresholds[best])


def act_dcf(
    target_scores,
    nontarget_scores,
    p_target: float = 0.01,
    c_miss: float = 1,
    c_fa: float = 1,
    threshold: float | None = None,
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
        The threshold. None takes Bayes' threshold, ln(c_fa (1 - p_target) / (c_miss p_target)), which is the
        best one if the scores are natural-logarithm likelihood ratios.

    Returns
    -------
    float
        The cost; 1 is what rejecting all (or accepting all) costs, and it can exceed 1.

    Raises
    ------
    ValueError
        If a class has no score, a score is NaN or infinite, or prior or costs are out of range.

    Examples
    --------
    >>> act_dcf([2.0, 5.0], [-1.0, 0.5], p_target=0.5)
    0.5
    """
    weight_miss, weight_fa = cost_weights(p_target, c_miss, c_fa)
    targets = check_scores(target_scores, "target")
    nontargets = check_scores(nontarget_scores, "non-target")
    if threshold is None:
        threshold = math.log(c_fa * (1 - p_target)) - math.log(c_miss * p_target)
    return float(weight_miss * np.mean(targets < threshold) + weight_fa * np.mean(nontargets >= threshold))


def cllr(target_llrs, nontarget_llrs) -> float:
    """Compute the cost of log-likelihood ratios, over all operating points (Bruemmer and du Preez 2006).

    Parameters
    ----------
    target_llrs : array_like
        Natural-logarithm likelihood ratios of the target trials.
    nontarget_llrs : array_like
        Those of the non-target trials.

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
    miss = np.mean(np.logaddexp(0, -targets))
    false_alarm = np.mean(np.logaddexp(0, nontargets))
    return float((miss + false_alarm) / (2 * math.log(2)))


def min_cllr(target_scores, nontarget_scores) -> float:
    """Compute the least `cllr` that any calibration which keeps the order of the scores could reach.

    The best such calibration is found by the pool-adjacent-violators algorithm (Bruemmer and du Preez 2006).
    The difference from `cllr` is the loss by calibration. Finite, also where the classes do not overlap.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials, of any scale.
    nontarget_scores : array_like
        Those of the non-target trials.

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
    _, targets_below, nontargets_below = count_below(target_scores, nontarget_scores)
    return min_cllr_of_counts(np.diff(targets_below), np.diff(nontargets_below))


def min_cllr_of_counts(targets: np.ndarray, nontargets: np.ndarray) -> float:
    """Compute `min_cllr` from numbers of trials, (K,) by ascending score; none of both zero."""
    corners = hull_corners(targets, nontargets)[:-1]
    targets, nontargets = np.add.reduceat(targets, corners), np.add.reduceat(nontargets, corners)
    # Every trial of a block has the ratio of its shares. A block of one class has an infinite ratio, which
    # costs that class nothing and meets no trial of the other, so each sum takes the blocks with such trials.
    p_target, p_nontarget = targets / targets.sum(), nontargets / nontargets.sum()
    both = targets * nontargets > 0
    p_target, p_nontarget = p_target[both], p_nontarget[both]
    miss = np.sum(p_target * np.log1p(p_nontarget / p_target))
    false_alarm = np.sum(p_nontarget * np.log1p(p_target / p_nontarget))
    return float((miss + false_alarm) / (2 * math.log(2)))


def cost_weights(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    """Compute what a miss and a false-alarm rate of 1 cost, by NIST's normalisation; the lower of both is 1.

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
