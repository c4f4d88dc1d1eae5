"""The curve of miss against false-alarm rates, from which error rates and detection costs are read.

A trial is always accepted if its score reaches the threshold (score >= threshold), and trials of equal score are
accepted or rejected together. Each class is sorted once, O(N log N), and the classes are merged in O(N).
"""

from typing import NamedTuple

import numpy as np

from speechbrain_bccmt.arrays import as_array


class Counts(NamedTuple):
    """Trials of each class below each threshold that makes a difference, counted or weighted.

    Attributes
    ----------
    thresholds : numpy.ndarray
        (K + 1,) each distinct score, ascending, then the next number above the highest.
    targets_below, nontargets_below : numpy.ndarray
        (K + 1,) from 0 to the weight of all trials of the class.
    """

    thresholds: np.ndarray
    targets_below: np.ndarray
    nontargets_below: np.ndarray

    @property
    def p_miss(self) -> np.ndarray:
        """Miss rate at each threshold, never falling, from 0 to 1."""
        return self.targets_below / self.targets_below[-1]

    @property
    def p_false_alarm(self) -> np.ndarray:
        """False-alarm rate at each threshold, never rising, from 1 to 0."""
        return (self.nontargets_below[-1] - self.nontargets_below) / self.nontargets_below[-1]


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
    counts = count_below(target_scores, nontarget_scores)
    return counts.p_miss, counts.p_false_alarm, counts.thresholds


def hull_curve(target_scores, nontarget_scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the corners of the convex hull of the ROC.

    Every point of the hull is reached by choosing at random between two thresholds, and at each corner some detection
    cost has its minimum (Provost and Fawcett 2001).

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
    counts = count_below(target_scores, nontarget_scores)
    corners = hull_corners(np.diff(counts.targets_below), np.diff(counts.nontargets_below))
    return tuple(axis[corners] for axis in (counts.p_miss, counts.p_false_alarm, counts.thresholds))


def hull_corners(targets: np.ndarray, nontargets: np.ndarray) -> np.ndarray:
    """Find the corners of the convex hull by the pool-adjacent-violators algorithm.

    The blocks of the isotonic regression of the label on the score are the sides of the hull (Fawcett and
    Niculescu-Mizil 2007).

    Parameters
    ----------
    targets, nontargets : numpy.ndarray
        (K,) numbers of target and non-target trials at each distinct score, ascending; never both 0.

    Returns
    -------
    numpy.ndarray
        Corners as indices from 0 (nothing rejected) to K (all rejected), both included, ascending.
    """
    from scipy.optimize import isotonic_regression

    trials = targets + nontargets
    return isotonic_regression(targets / trials, weights=trials.astype(np.float64)).blocks


def equal_error_point(p_miss: np.ndarray, p_false_alarm: np.ndarray) -> tuple[float, int]:
    """Find where a curve crosses the diagonal.

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
        The one of these two points whose rates are closer.
    """
    difference = p_miss - p_false_alarm  # rises from -1 to 1
    after = int(np.searchsorted(difference, 0.0))
    before = after - 1
    weight = -difference[before] / (difference[after] - difference[before])
    rate = p_miss[before] + weight * (p_miss[after] - p_miss[before])
    return float(rate), before if -difference[before] <= difference[after] else after


def count_below(target_scores, nontarget_scores, weights=None) -> Counts:
    """Count the trials of each class below each threshold that makes a difference.

    Parameters
    ----------
    target_scores, nontarget_scores : array_like
        Scores of the target and of the non-target trials.
    weights : tuple of array_like, optional
        Weight of each target and each non-target trial, not negative; 1 by default.

    Returns
    -------
    Counts
        Integers, or sums of the weights.

    Raises
    ------
    ValueError
        If a class has no score or no weight, a score is NaN or infinite, or a weight is negative or not finite.

    Examples
    --------
    >>> [below.tolist() for below in count_below([0.2, 0.9], [0.1, 0.2])[1:]]
    [[0, 0, 1, 2], [0, 1, 2, 2]]
    >>> count_below([0.2, 0.9], [0.1, 0.2], weights=([3, 1], [1, 1])).targets_below.tolist()
    [0.0, 0.0, 3.0, 4.0]
    """
    targets = check_scores(target_scores, "target")
    nontargets = check_scores(nontarget_scores, "non-target")
    if weights is not None:
        thresholds = np.union1d(targets, nontargets)
        below = [
            _weight_below(scores, weight, kind, thresholds)
            for scores, weight, kind in zip(
                (targets, nontargets), weights, ("target", "non-target"), strict=True
            )
        ]
        return Counts(_with_end(thresholds), *below)
    targets, nontargets = np.sort(targets), np.sort(nontargets)
    # Merge by looking up the places of the smaller class among the larger one.
    smaller, larger = sorted((targets, nontargets), key=len)
    is_smaller = np.zeros(len(smaller) + len(larger), dtype=bool)
    is_smaller[np.searchsorted(larger, smaller) + np.arange(len(smaller))] = True
    scores = np.empty(len(is_smaller))
    scores[is_smaller], scores[~is_smaller] = smaller, larger
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))  # of equal scores
    thresholds = _with_end(scores[starts])
    starts = np.append(starts, len(scores))
    smaller_below = np.concatenate([[0], np.cumsum(is_smaller)])[starts]
    below = smaller_below, starts - smaller_below
    return Counts(thresholds, *(below if smaller is targets else below[::-1]))


def _with_end(thresholds: np.ndarray) -> np.ndarray:
    """Append the next number above the highest threshold, which rejects all."""
    with np.errstate(over="ignore"):  # infinity follows the largest number
        return np.append(thresholds, np.nextafter(thresholds[-1], np.inf))


def _weight_below(scores: np.ndarray, weights, kind: str, thresholds: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64).reshape(-1)
    if len(weights) != len(scores):
        raise ValueError(f"there are {len(weights)} weights for {len(scores)} {kind} scores")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(f"the weights of the {kind} trials must be finite, not negative and not all 0")
    order = np.argsort(scores)
    total = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.append(total[np.searchsorted(scores[order], thresholds)], total[-1])


def check_scores(scores, kind: str) -> np.ndarray:
    """Convert scores to a flat float64 array, which preserves ties, and reject what cannot be ranked.

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
    scores = as_array(scores, np.float64).reshape(-1)
    if scores.size == 0:
        raise ValueError(f"there are no {kind} scores: error rates need target and non-target trials")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {scores.size} {kind} scores are NaN or infinite, first number {wrong[0]}: "
            f"{scores[wrong[0]]}"
        )
    return scores
