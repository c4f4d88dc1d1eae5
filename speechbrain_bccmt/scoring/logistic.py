"""Prior-weighted logistic regression from scores and other measures to log-likelihood ratios."""

import math

import numpy as np

from speechbrain_bccmt.scoring.metrics import cost_weights

# Standard deviation of the normal prior over the weights, for features of unit variance. Scores at 1 % EER need a
# weight of about 12, which it barely constrains; without it, classes that do not overlap would have no finite solution.
PRIOR_DEVIATION = 10.0


def fit_log_likelihood_ratio(
    features: np.ndarray, target: np.ndarray, p_target: float = 0.01, c_miss: float = 1, c_fa: float = 1
) -> tuple[np.ndarray, float]:
    """Fit llr = features @ weights + offset by prior-weighted logistic regression.

    The objective is the cross-entropy at the operating point's effective prior: whatever the numbers in the list, all
    target trials together weigh c_miss p_target / (c_miss p_target + c_fa (1 - p_target)), the others the rest
    (Bruemmer's FoCal). scikit-learn finds the optimum. Features are scaled to unit variance, and their weights have a
    normal prior of standard deviation 10 (an L2 penalty). With some thousand trials of overlapping classes, it changes
    the weights by about 1 %, less than chance does. If classes do not overlap, it bounds them: ratios then grow with
    the logarithm of the number of trials.

    Parameters
    ----------
    features : numpy.ndarray
        Scores and other measures of each trial, (M, K), finite.
    target : numpy.ndarray of bool
        Which trials are target trials, (M,).
    p_target : float
        Prior probability of a target trial, in (0, 1).
    c_miss : float
        Cost of a miss, positive.
    c_fa : float
        Cost of a false alarm, positive.

    Returns
    -------
    weights : numpy.ndarray
        (K,); 0 for a feature that never varies.
    offset : float
        The offset of the log-likelihood ratio, without the prior's log-odds.

    Raises
    ------
    ValueError
        If a class has no trial, no feature varies, or prior or costs are out of range.

    Examples
    --------
    >>> weights, offset = fit_log_likelihood_ratio(np.array([[1.0], [2.0], [0.0], [1.5]]), np.arange(4) < 2, 0.5)
    >>> bool(weights[0] > 0), round(float(-offset / weights[0]), 2)
    (True, 1.16)
    """
    from sklearn.linear_model import LogisticRegression

    log_odds = effective_prior_log_odds(p_target, c_miss, c_fa)
    target = np.asarray(target, dtype=bool)
    n_target, n_nontarget = int(target.sum()), int((~target).sum())
    if not n_target or not n_nontarget:
        raise ValueError(
            f"there are {n_target} target and {n_nontarget} non-target trials: calibration needs both"
        )
    # Both classes count equally here, or the scale would depend on the list's share of targets.
    shares = np.where(target, 0.5 / n_target, 0.5 / n_nontarget)
    mean = shares @ features
    deviation = np.sqrt(shares @ np.square(features - mean))
    # The deviation of a constant column is rounding.
    varies = deviation > 1e-12 * np.maximum(1e-300, np.abs(mean))
    if not varies.any():
        raise ValueError(f"all {len(target)} scores are equal: there is nothing to calibrate")
    effective = 1 / (1 + math.exp(-log_odds))
    importance = len(target) * np.where(target, effective / n_target, (1 - effective) / n_nontarget)
    scaled = (features[:, varies] - mean[varies]) / deviation[varies]
    # Newton's method: few features make each step cheap, and it finds the optimum to many digits.
    solver = LogisticRegression(C=PRIOR_DEVIATION**2, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    solver.fit(scaled, target, sample_weight=importance)
    # Uninformative features get a weight of about 1e-16, of either sign.
    found = np.where(np.abs(solver.coef_[0]) > 1e-9, solver.coef_[0], 0.0)
    weights = np.zeros(features.shape[1])
    weights[varies] = found / deviation[varies]
    return weights, float(solver.intercept_[0] - weights @ mean - log_odds)


def effective_prior_log_odds(p_target: float, c_miss: float = 1, c_fa: float = 1) -> float:
    """Compute ln(c_miss p_target / (c_fa (1 - p_target))), the negative of Bayes' threshold.

    Parameters
    ----------
    p_target : float
        Prior probability of a target trial, in (0, 1).
    c_miss : float
        Cost of a miss, positive.
    c_fa : float
        Cost of a false alarm, positive.

    Returns
    -------
    float
        The log-odds.

    Raises
    ------
    ValueError
        If prior or costs are out of range.

    Examples
    --------
    >>> effective_prior_log_odds(0.5)
    0.0
    """
    weight_miss, weight_fa = cost_weights(p_target, c_miss, c_fa)
    return math.log(weight_miss) - math.log(weight_fa)


def check_score_weight(weight: float, fitted_on: str) -> None:
    """Reject a fit in which a higher score is evidence against the same speaker.

    Parameters
    ----------
    weight : float
        The fitted weight of the score.
    fitted_on : str
        Name of the trials, for the message.

    Raises
    ------
    ValueError
        If the weight is not positive.
    """
    if not weight > 0:
        raise ValueError(
            f"target trials{' of ' + fitted_on if fitted_on else ''} do not score higher than non-target "
            f"ones (fitted scale {weight:.4g}): are the labels swapped, or the scores distances?"
        )
