"""Pictures of scores: their histogram and the DET curve."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtri

from speechbrain_bccmt.scoring.metrics import check_scores, det_curve, equal_error_rate

TARGET, NONTARGET = "#1b7837", "#762a83"
DET_TICKS = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5])


def plot_score_histogram(
    target_scores, nontarget_scores, path: str | Path, threshold: float | None = None, title: str = ""
) -> None:
    """Draw how target and non-target scores are distributed, and the threshold between them.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    path : str or Path
        The PNG to write.
    threshold : float or None
        Threshold to mark; that of the equal error rate if None.
    title : str
        Title of the picture.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> path = getfixture("tmp_path") / "histogram.png"
    >>> plot_score_histogram(rng.normal(2, 1, 500), rng.normal(0, 1, 500), path)
    >>> path.exists()
    True
    """
    targets, nontargets = check_scores(target_scores, "target"), check_scores(nontarget_scores, "non-target")
    eer, eer_threshold = equal_error_rate(targets, nontargets)
    threshold = eer_threshold if threshold is None else threshold
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    low, high = min(targets.min(), nontargets.min()), max(targets.max(), nontargets.max())
    bins = np.linspace(low, high if high > low else low + 1, 81)
    for scores, colour, name in ((nontargets, NONTARGET, "non-target"), (targets, TARGET, "target")):
        # Each class has the same area: with many more non-targets the targets could not be seen.
        weights = np.full(scores.size, 100 / scores.size)
        axes.hist(scores, bins, weights=weights, color=colour, alpha=0.55, label=f"{name} ({scores.size:,})")
    label = f"threshold {threshold:.4g}\n(EER {100 * eer:.2f} %)"
    axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="score", ylabel="share of trials in %", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def plot_det(systems: dict, path: str | Path, title: str = "") -> None:
    """Draw the detection error trade-off of one or several systems, on normal deviate axes.

    Parameters
    ----------
    systems : dict of str to tuple
        Name of each system to its (target scores, non-target scores).
    path : str or Path
        The PNG to write.
    title : str
        Title of the picture.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> path = getfixture("tmp_path") / "det.png"
    >>> plot_det({"system": (rng.normal(2, 1, 500), rng.normal(0, 1, 500))}, path)
    >>> path.exists()
    True
    """
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    highest = 0.0
    for name, (target_scores, nontarget_scores) in systems.items():
        p_miss, p_false_alarm, _ = det_curve(target_scores, nontarget_scores)
        eer, _ = equal_error_rate(target_scores, nontarget_scores)
        highest = max(highest, eer)
        # Rates of 0 and 1 lie at infinity: they are drawn at the edge.
        miss, false_alarm = (ndtri(rate.clip(1e-7, 1 - 1e-7)) for rate in (p_miss, p_false_alarm))
        (line,) = axes.plot(false_alarm, miss, linewidth=1.5, label=f"{name} (EER {100 * eer:.2f} %)")
        if eer > DET_TICKS[0]:
            axes.plot(ndtri(eer), ndtri(eer), "o", markersize=5, color=line.get_color())
    edges = ndtri(DET_TICKS[[0, -1]])
    axes.plot(edges, edges, color="0.7", linewidth=0.8, linestyle=":")
    labels = [f"{100 * tick:g}" for tick in DET_TICKS]
    axes.set_xticks(ndtri(DET_TICKS), labels)
    axes.set_yticks(ndtri(DET_TICKS), labels)
    axes.set(xlim=edges, ylim=edges, aspect="equal", title=title)
    axes.set(xlabel="false alarms in %", ylabel="misses in %")
    axes.grid(color="0.9", linewidth=0.6)
    axes.legend(loc="upper right" if highest < 0.15 else "lower left")
    figure.savefig(path, dpi=150)
