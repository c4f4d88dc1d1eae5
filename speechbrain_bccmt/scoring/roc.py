"""The curve of miss against false-alarm rates, from which error rates and detection costs are read.

Everywhere a trial is accepted if its score reaches the threshold (score >= threshold), and trials of equal
score are accepted or rejected together. Each class is sorted once, O(N log N), the classes are merged in O(N).
"""

import numpy as np
import torch
from scipy.optimize import isotonic_regression


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
    return _curve(*count_below(target_scores, nontarget_scores))


def _curve(thresholds, targets_below, nontargets_below) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n_nontarget = nontargets_below[-1]
    return targets_below / targets_below[-1], (n_nontarget - nontargets_below) / n_nontarget, thresholds


def hull_curve(target_scores, nontarget_scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the corners of the convex hull of the ROC.

    Every point of the hull is reached by a system that draws between two thresholds, and its corners are where
    some detection cost has its minimum (Provost and Fawcett 2001).

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.

    Returns
    -------
    p_miss, p_false_alarm, thresholds : numpy.ndarray
        The points of `det_curve` that are corners.

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> p_miss, p_false_alarm, _ = hull_curve([1.0, 3.0], [0.0, 2.0])
    >>> p_miss.tolist(), p_false_alarm.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    thresholds, targets_below, nontargets_below = count_below(target_scores, nontarget_scores)
    corners = hull_corners(np.diff(targets_below), np.diff(nontargets_below))
    return tuple(axis[corners] for axis in _curve(thresholds, targets_below, nontargets_below))


def hull_corners(targets: np.ndarray, nontargets: np.ndarray) -> np.ndarray:
    """Find the corners of the convex hull by the pool-adjacent-violators algorithm.

    The blocks of the isotonic regression of the label on the score are the sides of the hull (Fawcett and
    Niculescu-Mizil 2007).

    Parameters
    ----------
    targets, nontargets : numpy.ndarray
        (K,) numbers of target and non-target trials at each distinct score, ascending; none without a trial.

    Returns
    -------
    numpy.ndarray
        Corners as indices from 0 (nothing rejected) to K (all rejected), both included, ascending.
    """
    trials = targets + nontargets
    return isotonic_regression(targets / trials, weights=trials.astype(np.float64)).blocks


def equal_error_point(p_miss: np.ndarray, p_false_alarm: np.ndarray) -> tuple[float, int]:
    """Cross a curve with the diagonal.

    Parameters
    ----------
    p_miss : numpy.ndarray
        (K,) never falling, from 0 to 1.
    p_false_alarm : numpy.ndarray
        (K,) never rising, from 1 to 0.

    Returns
    -------
    rate : float
        Where they are equal, on the line between two neighbouring points.
    nearest : int
        Which of these two points has the rates nearer to each other.
    """
    difference = p_miss - p_false_alarm  # rises from -1 to 1
    after = int(np.searchsorted(difference, 0.0))
    before = after - 1
    weight = -difference[before] / (difference[after] - difference[before])
    rate = p_miss[before] + weight * (p_miss[after] - p_miss[before])
    return float(rate), before if -difference[before] <= difference[after] else after


def count_below(target_scores, nontarget_scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the trials of each class below each threshold that makes a difference.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.

    Returns
    -------
    thresholds : numpy.ndarray
        (K + 1,) each distinct score, ascending, then the next number above the highest.
    targets_below, nontargets_below : numpy.ndarray
        (K + 1,) integers, from 0 to the number of trials of the class.

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> [axis.tolist() for axis in count_below([2.0, 3.0], [1.0, 2.0])][1:]
    [[0, 0, 1, 2], [0, 1, 2, 2]]
    """
    targets = np.sort(check_scores(target_scores, "target"))
    nontargets = np.sort(check_scores(nontarget_scores, "non-target"))
    # Merge: a sorted class gives the places of its scores among all; the smaller class is looked up.
    smaller, larger = sorted((targets, nontargets), key=len)
    is_smaller = np.zeros(len(smaller) + len(larger), dtype=bool)
    is_smaller[np.searchsorted(larger, smaller) + np.arange(len(smaller))] = True
    scores = np.empty(len(is_smaller))
    scores[is_smaller], scores[~is_smaller] = smaller, larger
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))  # of equal scores
    with np.errstate(over="ignore"):  # above the largest number there is, is infinity
        thresholds = np.append(scores[starts], np.nextafter(scores[-1], np.inf))
    starts = np.append(starts, len(scores))
    smaller_below = np.concatenate([[0], np.cumsum(is_smaller)])[starts]
    below = smaller_below, starts - smaller_below
    return thresholds, *(below if smaller is targets else below[::-1])


def check_scores(scores, kind: str) -> np.ndarray:
    """Turn scores into a flat float64 array, which keeps ties as they are, and refuse what cannot be ranked.

    Parameters
    ----------
    scores : array_like
        Scores as a list, numpy array or torch tensor. Integers from 2**53 on are rounded.
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
