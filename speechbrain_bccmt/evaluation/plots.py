"""Plots of scores: histograms, DET curves, and error rates by duration.

The suffix of the path chooses the format: .png, .svg or .pdf.
"""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtri

from speechbrain_bccmt.evaluation.summary import eer_by_duration
from speechbrain_bccmt.figures import save_figure
from speechbrain_bccmt.scoring.metrics import check_scores, det_curve, equal_error_rate, min_dcf

TARGET, NONTARGET = "#1b7837", "#762a83"
THRESHOLD_STYLES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
DET_TICKS = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5])


def plot_score_histogram(
    target_scores, nontarget_scores, path: str | Path, threshold=None, title: str = ""
) -> None:
    """Draw the distributions of target and non-target scores, and the thresholds between them.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    path : str or Path
        The picture to write.
    threshold : float, mapping of str to float, or None
        Threshold to mark, or several by their names, see `name_thresholds`; that of the equal error rate if
        None.
    title : str
        Title of the picture.

    Raises
    ------
    ValueError
        If a class has no score, a score is NaN or infinite, or the suffix is unknown.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> path = getfixture("tmp_path") / "histogram.png"
    >>> plot_score_histogram(rng.normal(2, 1, 500), rng.normal(0, 1, 500), path)
    >>> path.exists()
    True
    """
    scores = target_scores, nontarget_scores
    plot_score_histograms({title: scores}, path, None if threshold is None else {title: threshold})


def plot_score_histograms(
    systems: Mapping, path: str | Path, thresholds: Mapping | None = None, title: str = ""
) -> None:
    """Draw the score histograms of several systems, one above the other, each with its own score axis.

    Parameters
    ----------
    systems : mapping of str to tuple
        Name of each system to its (target scores, non-target scores).
    path : str or Path
        The picture to write.
    thresholds : mapping or None
        Name of each system to its threshold, or to several by their names; that of the equal error rate if a system is
        missing.
    title : str
        Title of the picture.

    Raises
    ------
    ValueError
        If there is no system, a class has no score, a score is NaN or infinite, or the suffix is unknown.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores, path = (rng.normal(2, 1, 500), rng.normal(0, 1, 500)), getfixture("tmp_path") / "both.svg"
    >>> plot_score_histograms({"cosine": scores, "s-norm": scores}, path, {"cosine": name_thresholds(*scores)})
    >>> path.exists()
    True
    """
    system_colours(systems)
    figure = Figure(figsize=(7.5, 0.6 + 3.4 * len(systems)), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(len(systems), squeeze=False)[:, 0]
    for axes, (name, scores) in zip(panels, systems.items(), strict=True):
        _draw_histogram(axes, *scores, (thresholds or {}).get(name))
        axes.set_title(name, loc="left", fontsize="medium" if len(systems) > 1 else "large")
    figure.supylabel("share of trials in %", fontsize="medium")
    panels[-1].set_xlabel("score")
    save_figure(figure, path)


def name_thresholds(
    target_scores,
    nontarget_scores,
    p_target: float = 0.01,
    c_miss: float = 1,
    c_fa: float = 1,
    calibrated: float | None = None,
) -> dict[str, float]:
    """List the thresholds of a system for the legend of its histogram.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target trials.
    nontarget_scores : array_like
        Scores of the non-target trials.
    p_target, c_miss, c_fa : float
        The operating point of the detection cost.
    calibrated : float or None
        A calibration's threshold, fitted on other trials.

    Returns
    -------
    dict of str to float
        Label to threshold: of the equal error rate, of the minimum detection cost, and the calibrated one.

    Raises
    ------
    ValueError
        If a class has no score, a score is NaN or infinite, or the operating point is out of range.

    Examples
    --------
    >>> name_thresholds([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6], calibrated=0.65)
    {'EER 25.00 %': 0.6, 'minDCF 0.500': 0.7, 'calibrated': 0.65}
    """
    eer, eer_threshold = equal_error_rate(target_scores, nontarget_scores)
    cost, cost_threshold = min_dcf(target_scores, nontarget_scores, p_target, c_miss, c_fa)
    named = {f"EER {100 * eer:.2f} %": eer_threshold, f"minDCF {cost:.3f}": cost_threshold}
    return named if calibrated is None else named | {"calibrated": float(calibrated)}


def plot_det(systems: Mapping, path: str | Path, title: str = "") -> None:
    """Draw the detection error trade-off of one or several systems, on normal deviate axes.

    Parameters
    ----------
    systems : mapping of str to tuple
        Name of each system to its (target scores, non-target scores).
    path : str or Path
        The picture to write.
    title : str
        Title of the picture.

    Raises
    ------
    ValueError
        If there is no system, a class has no score, a score is NaN or infinite, or the suffix is unknown.

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
    for colour, (name, scores) in zip(system_colours(systems), systems.items(), strict=True):
        p_miss, p_false_alarm, _ = det_curve(*scores)
        eer, _ = equal_error_rate(*scores)
        highest = max(highest, eer)
        # Rates of 0 and 1 lie at infinity: they are drawn at the edge.
        miss, false_alarm = (ndtri(rate.clip(1e-7, 1 - 1e-7)) for rate in (p_miss, p_false_alarm))
        label = f"{name} (EER {100 * eer:.2f} %)"
        axes.plot(false_alarm, miss, linewidth=1.5, color=colour, label=label)
        if eer > DET_TICKS[0]:
            axes.plot(ndtri(eer), ndtri(eer), "o", markersize=5, color=colour)
    edges = ndtri(DET_TICKS[[0, -1]])
    axes.plot(edges, edges, color="0.7", linewidth=0.8, linestyle=":")
    labels = [f"{100 * tick:g}" for tick in DET_TICKS]
    axes.set_xticks(ndtri(DET_TICKS), labels)
    axes.set_yticks(ndtri(DET_TICKS), labels)
    axes.set(xlim=edges, ylim=edges, aspect="equal", title=title)
    axes.set(xlabel="false alarms in %", ylabel="misses in %")
    axes.grid(color="0.9", linewidth=0.6)
    axes.legend(loc="upper right" if highest < 0.15 else "lower left")
    save_figure(figure, path)


def plot_eer_by_duration(
    systems: Mapping, durations, target, path: str | Path, edges=None, title: str = ""
) -> None:
    """Draw the equal error rate over the duration of a trial's shorter side, with the numbers of trials.

    Parameters
    ----------
    systems : mapping of str to array_like
        Name of each system to its scores of the same trials, (M,).
    durations : array_like
        Seconds of the shorter side of each trial, (M,).
    target : array_like of bool
        Which trials are target trials, (M,).
    path : str or Path
        The picture to write.
    edges : sequence of float or None
        Edges of the bins in seconds, ascending; None chooses them, see `eer_by_duration`.
    title : str
        Title of the picture.

    Raises
    ------
    ValueError
        If there is no system, shapes do not fit, a score is NaN or infinite, or the suffix is unknown.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> target, path = np.arange(400) < 200, getfixture("tmp_path") / "durations.png"
    >>> scores, durations = rng.normal(2 * target, 1), rng.uniform(1, 9, 400)
    >>> plot_eer_by_duration({"system": scores}, durations, target, path, edges=[1, 3, 5, 9])
    >>> path.exists()
    True
    """
    colours = system_colours(systems)
    tables = {name: eer_by_duration(scores, target, durations, edges) for name, scores in systems.items()}
    bins = next(iter(tables.values()))
    figure = Figure(figsize=(max(5.5, 1.5 + 1.3 * len(bins)), 4.4), layout="constrained")
    axes = figure.add_subplot()
    for colour, (name, table) in zip(colours, tables.items(), strict=True):
        # A bin without trials of both classes is a gap in the line.
        rates = [np.nan if row["eer"] is None else 100 * row["eer"] for row in table]
        axes.plot(rates, "o-", color=colour, label=name, clip_on=False)
    labels = [
        f"{_seconds(row['from'])} to {_seconds(row['to'])} s\n"
        f"{row['n_target']:,} target\n{row['n_nontarget']:,} non-target"
        for row in bins
    ]
    axes.set_xticks(range(len(bins)), labels)
    axes.set(xlim=(-0.5, len(bins) - 0.5), title=title)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="duration of the shorter side, and numbers of trials", ylabel="EER in %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6, axis="y")
    axes.legend(frameon=False)
    save_figure(figure, path)


def system_colours(systems: Mapping) -> list:
    """Choose a colour for each system; there must be at least one.

    Parameters
    ----------
    systems : mapping
        The systems.

    Returns
    -------
    list
        Colours that matplotlib knows, distinct for up to 20 systems.

    Raises
    ------
    ValueError
        If there is no system.
    """
    if not systems:
        raise ValueError("there is no system to draw")
    colours = matplotlib.colormaps["tab10" if len(systems) <= 10 else "tab20"].colors
    return [colours[number % len(colours)] for number in range(len(systems))]


def _draw_histogram(axes, target_scores, nontarget_scores, thresholds) -> None:
    targets, nontargets = check_scores(target_scores, "target"), check_scores(nontarget_scores, "non-target")
    eer, eer_threshold = equal_error_rate(targets, nontargets)
    if thresholds is None:
        thresholds = eer_threshold
    if not isinstance(thresholds, Mapping):
        thresholds = {f"threshold {thresholds:.4g}\n(EER {100 * eer:.2f} %)": thresholds}
    else:
        thresholds = {f"{name} at {value:.4g}": value for name, value in thresholds.items()}
    low, high = min(targets.min(), nontargets.min()), max(targets.max(), nontargets.max())
    bins = np.linspace(low, high if high > low else low + 1, 81)
    for scores, colour, name in ((nontargets, NONTARGET, "non-target"), (targets, TARGET, "target")):
        # Each class has the same area: with many more non-targets, the targets would be invisible.
        weights = np.full(scores.size, 100 / scores.size)
        axes.hist(scores, bins, weights=weights, color=colour, alpha=0.55, label=f"{name} ({scores.size:,})")
    for number, (label, value) in enumerate(thresholds.items()):
        style = THRESHOLD_STYLES[number % len(THRESHOLD_STYLES)]
        axes.axvline(value, color="black", linestyle=style, linewidth=1.2, label=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
