"""Error rates and costs of a verification system, from its target and non-target scores.

Everywhere a trial is accepted if its score reaches the threshold (score >= threshold), and trials of equal
score are accepted or rejected together. Scores come as lists, numpy arrays or torch tensors of any device;
all sizes are sorted once, O(N log N).
"""

import math

import numpy as np
import torch


def det_curve(target_scores, nontarget_scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the miss and false-alarm rates at every threshold that makes a difference.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.

    Returns
    -------
    p_miss : numpy.ndarray
        Share of target trials rejected, rising from 0 to 1.
    p_false_alarm : numpy.ndarray
        Share of non-target trials accepted, falling from 1 to 0.
    thresholds : numpy.ndarray
        Each distinct score, ascending, then the next number above the highest, which rejects all.

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> p_miss, p_false_alarm, thresholds = det_curve([2.0, 3.0], [1.0, 2.0])
    >>> p_miss.tolist(), p_false_alarm.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    targets = np.sort(check_scores(target_scores, "target"))
    nontargets = np.sort(check_scores(nontarget_scores, "non-target"))
    thresholds = np.unique(np.concatenate([targets, nontargets]))
    thresholds = np.append(thresholds, np.nextafter(thresholds[-1], np.inf))
    p_miss = np.searchsorted(targets, thresholds) / targets.size
    p_false_alarm = (nontargets.size - np.searchsorted(nontargets, thresholds)) / nontargets.size
    return p_miss, p_false_alarm, thresholds


def equal_error_rate(target_scores, nontarget_scores) -> tuple[float, float]:
    """Compute the equal error rate, where as many target as non-target trials are decided wrongly.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.

    Returns
    -------
    eer : float
        In [0, 1], interpolated on the line between the two neighbouring points of the ROC.
    threshold : float
        The score, among those that occur, at which both rates are nearest to each other.

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> equal_error_rate([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6])
    (0.25, 0.6)
    """
    p_miss, p_false_alarm, thresholds = det_curve(target_scores, nontarget_scores)
    difference = p_miss - p_false_alarm  # rises from -1 to 1
    after = int(np.searchsorted(difference, 0.0))
    before = after - 1
    weight = -difference[before] / (difference[after] - difference[before])
    eer = p_miss[before] + weight * (p_miss[after] - p_miss[before])
    nearest = before if -difference[before] <= difference[after] else after
    return float(eer), float(thresholds[nearest])


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
    weight_miss, weight_fa = _cost_weights(p_target, c_miss, c_fa)
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
    weight_miss, weight_fa = _cost_weights(p_target, c_miss, c_fa)
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


def check_scores(scores, kind: str) -> np.ndarray:
    """Turn scores into a flat float64 array, which keeps ties as they are, and refuse what cannot be ranked.

    Parameters
    ----------
    scores : array_like
        Scores as a list, numpy array or torch tensor.
    kind : str
        Whose scores, for the message.

    Returns
    -------
    numpy.ndarray
        (N,), float64, finite, N at least 1.

    Raises
    ------
    ValueError
        If there is no score, or a score is NaN or infinite.
    """
    if isinstance(scores, torch.Tensor):
        scores = scores.detach().double().cpu().numpy()
    scores = np.asarray(scores, dtype=np.float64).reshape(-1)
    if scores.size == 0:
        raise ValueError(f"there are no {kind} scores: error rates need target and non-target trials")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {scores.size} {kind} scores are NaN or infinite, first number {wrong[0]}: "
            f"{scores[wrong[0]]}"
        )
    return scores


def _cost_weights(p_target: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    if not 0 < p_target < 1:
        raise ValueError(f"p_target is {p_target}, expected a probability between 0 and 1, both excluded")
    if not (0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise ValueError(f"c_miss is {c_miss} and c_fa {c_fa}, expected positive costs")
    weight_miss, weight_fa = c_miss * p_target, c_fa * (1 - p_target)
    blind = min(weight_miss, weight_fa)
    return weight_miss / blind, weight_fa / blind
