"""Evaluation of one or several systems on one trial list: a table, JSON and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from speechbrain_bccmt.evaluation.calibration_plots import plot_calibration
from speechbrain_bccmt.evaluation.plots import name_thresholds, plot_det, plot_score_histograms
from speechbrain_bccmt.evaluation.summary import align_columns, summarise
from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.scoring.bootstrap import confidence_intervals
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.metrics import act_dcf, cllr, min_cllr, miss_rate_at


@dataclass(frozen=True)
class OperatingPoint:
    """The operating point that a system is evaluated for.

    Parameters
    ----------
    p_target : float
        Prior probability of a target trial, in (0, 1).
    c_miss, c_fa : float
        Costs of a miss and of a false alarm, positive.
    false_alarm_rate : float
        The rate at which the miss rate is reported, in [0, 1].
    """

    p_target: float = 0.01
    c_miss: float = 1.0
    c_fa: float = 1.0
    false_alarm_rate: float = 0.01

    @property
    def costs(self) -> dict[str, float]:
        """Return the arguments of the detection costs."""
        return {"p_target": self.p_target, "c_miss": self.c_miss, "c_fa": self.c_fa}


def evaluate_system(
    scores,
    target,
    point: OperatingPoint = OperatingPoint(),
    calibration: Calibration | None = None,
    speakers: tuple[np.ndarray, np.ndarray] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Compute all figures of one system.

    Parameters
    ----------
    scores : array_like
        One score per trial, (M,).
    target : array_like of bool
        Which trials are target trials, (M,).
    point : OperatingPoint
        The operating point to evaluate it for.
    calibration : Calibration or None
        Fitted on other trials; adds `act_dcf`, `cllr` and the threshold.
    speakers : tuple of numpy.ndarray or None
        The speaker of each side of each trial; adds 95 % `intervals` of EER and minDCF.
    n_resamples : int
        Number of bootstrap resamples; 0 for no intervals.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    dict
        The result of `summarise`, plus `min_cllr`, `miss_rate` (at `false_alarm_rate`) and what the options add.

    Raises
    ------
    ValueError
        As the metrics: a class without trials, a score that is not finite, an option out of range.

    Examples
    --------
    >>> figures = evaluate_system([0.9, 0.8, 0.3, 0.1], [True, True, False, False])
    >>> figures["eer"], figures["min_cllr"], figures["miss_rate"]
    (0.0, 0.0, 0.0)
    """
    scores, target = np.asarray(scores, dtype=np.float64), np.asarray(target, dtype=bool)
    figures = summarise(scores, target, **point.costs)
    targets, nontargets = scores[target], scores[~target]
    figures["min_cllr"] = min_cllr(targets, nontargets)
    figures["miss_rate"] = miss_rate_at(targets, nontargets, point.false_alarm_rate)[0]
    if calibration is not None:
        llrs = calibration.llr(targets), calibration.llr(nontargets)
        figures["act_dcf"] = act_dcf(*llrs, **point.costs)
        figures["cllr"] = cllr(*llrs)
        figures["calibrated_threshold"] = replace(calibration, **point.costs).threshold
    if speakers is not None and n_resamples:
        found = confidence_intervals(
            scores, target, *speakers, n_resamples=n_resamples, seed=seed, **point.costs
        )
        figures["intervals"] = {name: [interval.low, interval.high] for name, interval in found.items()}
    return figures


def format_evaluation(systems: Mapping[str, Mapping], point: OperatingPoint) -> str:
    """Format the results of `evaluate_system` as a table, one line per system.

    Parameters
    ----------
    systems : mapping of str to mapping
        Name of each system to its figures.
    point : OperatingPoint
        The operating point they were evaluated for.

    Returns
    -------
    str
        The table, without a trailing newline.

    Examples
    --------
    >>> print(format_evaluation({"cosine": evaluate_system([0.9, 0.1], [True, False])}, OperatingPoint()))
    system  EER in %  minDCF  minCllr  miss % at FA 1 %
    cosine      0.00  0.0000   0.0000              0.00
    """
    calibrated = any("act_dcf" in figures for figures in systems.values())
    header = ["system", "EER in %", "minDCF"]
    header += ["actDCF", "Cllr"] if calibrated else []
    header += ["minCllr", f"miss % at FA {100 * point.false_alarm_rate:g} %"]
    rows = [header]
    for name, figures in systems.items():
        cells = [name, f"{100 * figures['eer']:.2f}", f"{figures['min_dcf']:.4f}"]
        for place, (key, scale, digits) in enumerate((("eer", 100, 2), ("min_dcf", 1, 3)), start=1):
            if interval := figures.get("intervals", {}).get(key):
                cells[place] += " [" + ", ".join(f"{scale * end:.{digits}f}" for end in interval) + "]"
        if calibrated:
            cells += [f"{figures[key]:.4f}" if key in figures else "-" for key in ("act_dcf", "cllr")]
        rows.append([*cells, f"{figures['min_cllr']:.4f}", f"{100 * figures['miss_rate']:.2f}"])
    return align_columns(rows)


def draw(
    folder: Path,
    systems: Mapping[str, np.ndarray],
    target: np.ndarray,
    point: OperatingPoint,
    calibrations: Mapping[str, Calibration],
    title: str = "",
) -> list[Path]:
    """Draw DET curves, histograms and, for calibrated systems, the quality of calibration; PNG and SVG.

    Parameters
    ----------
    folder : Path
        The output folder, which must exist.
    systems : mapping of str to numpy.ndarray
        Name of each system to its scores, (M,).
    target : numpy.ndarray of bool
        Which trials are target trials, (M,).
    point : OperatingPoint
        The operating point they are evaluated for.
    calibrations : mapping of str to Calibration
        Calibrations of the systems that have one.
    title : str
        Title of the pictures.

    Returns
    -------
    list of Path
        The pictures.
    """
    pairs = {name: (scores[target], scores[~target]) for name, scores in systems.items()}
    thresholds = {}
    for name, pair in pairs.items():
        own = calibrations.get(name)
        threshold = None if own is None else replace(own, **point.costs).threshold
        thresholds[name] = name_thresholds(*pair, **point.costs, calibrated=threshold)
    llrs = {name: tuple(own.llr(side) for side in pairs[name]) for name, own in calibrations.items()}
    paths = []
    for suffix in (".png", ".svg"):
        paths += [(folder / name).with_suffix(suffix) for name in ("det", "score_histogram")]
        plot_det(pairs, paths[-2], title=title)
        plot_score_histograms(pairs, paths[-1], thresholds, title=title)
        if llrs:
            paths.append(folder / f"calibration{suffix}")
            plot_calibration(llrs, paths[-1], title=title)
    return paths


def write_results(path: Path, results: dict) -> None:
    """Write results as JSON, atomically."""
    with temporary_sibling(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
