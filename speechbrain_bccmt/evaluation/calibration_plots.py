"""Plots of how well log-likelihood ratios are calibrated."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit, xlogy

from speechbrain_bccmt.evaluation.plots import system_colours
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.scoring.logistic import effective_prior_log_odds
from speechbrain_bccmt.scoring.metrics import check_scores, cllr, min_cllr
from speechbrain_bccmt.scoring.roc import count_below, hull_corners

# Above this number of trials, neighbouring ratios are replaced by their mean: no difference is visible.
MOST_RATIOS = 20_000
PRIOR_TICKS = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])


def empirical_cross_entropy(target_llrs, nontarget_llrs, prior_log_odds) -> np.ndarray:
    """Compute the cross-entropy of the posteriors that log-likelihood ratios give, over priors.

    Ramos and Gonzalez-Rodriguez 2013. At prior log-odds 0 it is `cllr`.

    Parameters
    ----------
    target_llrs : array_like
        Natural-logarithm likelihood ratios of the target trials.
    nontarget_llrs : array_like
        Those of the non-target trials.
    prior_log_odds : array_like
        ln(p_target / (1 - p_target)), (P,).

    Returns
    -------
    numpy.ndarray
        In bits, (P,).

    Raises
    ------
    ValueError
        If a class has no ratio, or a ratio is NaN or infinite.

    Examples
    --------
    >>> empirical_cross_entropy([0.0], [0.0], [0.0]).tolist()
    [1.0]
    """
    targets = check_scores(target_llrs, "target")
    nontargets = check_scores(nontarget_llrs, "non-target")
    return _cross_entropy(_condense(targets), _condense(nontargets), np.asarray(prior_log_odds, dtype=float))


def least_cross_entropy(target_scores, nontarget_scores, prior_log_odds) -> np.ndarray:
    """Compute the lowest `empirical_cross_entropy` that any order-preserving calibration could reach.

    The best calibration is that of the pool-adjacent-violators algorithm (PAV).

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials, of any scale.
    nontarget_scores : array_like
        Those of the non-target trials.
    prior_log_odds : array_like
        ln(p_target / (1 - p_target)), (P,).

    Returns
    -------
    numpy.ndarray
        In bits, (P,).

    Raises
    ------
    ValueError
        If a class has no score, or a score is NaN or infinite.

    Examples
    --------
    >>> least_cross_entropy([0.5], [0.5], [0.0]).tolist(), least_cross_entropy([0.5], [0.1], [0.0]).tolist()
    ([1.0], [0.0])
    """
    _, targets_below, nontargets_below = count_below(target_scores, nontarget_scores)
    targets, nontargets = np.diff(targets_below), np.diff(nontargets_below)
    corners = hull_corners(targets, nontargets)[:-1]
    shares = [np.add.reduceat(counts, corners) / counts.sum() for counts in (targets, nontargets)]
    # A block of one class has an infinite ratio, which costs that class nothing.
    with np.errstate(divide="ignore"):
        llrs = np.log(shares[0]) - np.log(shares[1])
    sides = [(llrs[share > 0], share[share > 0]) for share in shares]
    return _cross_entropy(*sides, np.asarray(prior_log_odds, dtype=float))


def plot_calibration(
    systems: Mapping, path: str | Path, p_target: float | None = None, title: str = ""
) -> None:
    """Draw the empirical cross-entropy of one or several systems over the prior.

    Both axes are logarithmic. Solid: the log-likelihood ratios as they are. Dashed: the best that their order allows.
    The gap is what bad calibration costs. Dotted: ratios that say nothing; a system above this line does harm.

    Parameters
    ----------
    systems : mapping of str to tuple
        Name of each system to its log-likelihood ratios (target, non-target).
    path : str or Path
        The picture to write; its suffix chooses the format (.png, .svg, .pdf).
    p_target : float or None
        Prior of an operating point to mark.
    title : str
        Title of the picture.

    Raises
    ------
    ValueError
        If there is no system, a class has no ratio, a ratio is NaN or infinite, or the suffix is unknown.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> path = getfixture("tmp_path") / "calibration.svg"
    >>> plot_calibration({"system": (rng.normal(8, 4, 500), rng.normal(-8, 4, 500))}, path)
    >>> path.exists()
    True
    """
    colours = system_colours(systems)
    log_odds = np.linspace(-7.5, 7.5, 151)
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.add_subplot()
    prior = expit(log_odds)
    neutral = -(xlogy(prior, prior) + xlogy(1 - prior, 1 - prior)) / np.log(2)
    axes.plot(log_odds, neutral, color="0.4", linestyle=":", label="ratios that say nothing")
    for colour, (name, llrs) in zip(colours, systems.items(), strict=True):
        label = f"{name} (Cllr {cllr(*llrs):.3f}, min {min_cllr(*llrs):.3f})"
        axes.plot(log_odds, empirical_cross_entropy(*llrs, log_odds), color=colour, label=label)
        axes.plot(log_odds, least_cross_entropy(*llrs, log_odds), color=colour, linestyle="--", linewidth=1)
    axes.plot([], [], color="0.4", linestyle="--", linewidth=1, label="best that the order allows")
    if p_target is not None:
        marked = effective_prior_log_odds(p_target)
        axes.axvline(marked, color="0.7", linewidth=1, label=f"prior {p_target:g}", zorder=0)
    # On a linear axis, good systems would be lines at the bottom, and low priors would be invisible.
    lowest = min(
        line.get_ydata()[25:-25].min() for line in axes.lines if len(line.get_ydata()) == len(log_odds)
    )
    axes.set(xlim=log_odds[[0, -1]], yscale="log", ylim=(max(lowest / 2, 1e-4), 2), title=title)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="prior log-odds of a target trial", ylabel="empirical cross-entropy in bits")
    above = axes.secondary_xaxis("top")
    above.set_xticks(np.log(PRIOR_TICKS / (1 - PRIOR_TICKS)), [f"{tick:g}" for tick in PRIOR_TICKS])
    above.set_xlabel("prior probability of a target trial")
    axes.grid(color="0.9", linewidth=0.6)
    longest = max(len(text) for text in axes.get_legend_handles_labels()[1])
    figure.legend(loc="outside lower center", ncols=2 if longest <= 40 else 1, frameon=False)
    save_figure(figure, path)


def _condense(llrs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ratios and their shares of all; if there are many, the means of narrow bins."""
    low, span = llrs.min(), np.ptp(llrs)
    if len(llrs) <= MOST_RATIOS or span == 0:
        return llrs, np.full(len(llrs), 1 / len(llrs))
    # Of equal width: the few worst ratios cost the most, and stay as they are.
    bins = ((llrs - low) * ((MOST_RATIOS - 1) / span)).astype(np.intp)
    sizes = np.bincount(bins)
    sums = np.bincount(bins, llrs)
    return sums[sizes > 0] / sizes[sizes > 0], sizes[sizes > 0] / len(llrs)


def _cross_entropy(targets: tuple, nontargets: tuple, log_odds: np.ndarray) -> np.ndarray:
    """Compute it from (ratios, shares) of both classes; shares sum to 1, except for infinite, costless ratios."""
    entropy = np.empty(len(log_odds))
    for number, odds in enumerate(log_odds):
        miss = np.logaddexp(0, -targets[0] - odds) @ targets[1]
        false_alarm = np.logaddexp(0, nontargets[0] + odds) @ nontargets[1]
        entropy[number] = expit(odds) * miss + expit(-odds) * false_alarm
    return entropy / np.log(2)
