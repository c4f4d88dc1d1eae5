"""Results of a verification run: the score of each trial, and a summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.scoring.metrics import equal_error_rate, min_dcf
from speechbrain_bccmt.trials.read import Trials


def summarise(
    scores, target, p_target: float = 0.01, c_miss: float = 1, c_fa: float = 1
) -> dict[str, float | int]:
    """Compute the figures that a verification run is evaluated by.

    Parameters
    ----------
    scores : numpy.ndarray
        One score per trial, (M,).
    target : numpy.ndarray of bool
        Which trials are target trials, (M,).
    p_target : float
        Prior probability of a target trial for the detection cost.
    c_miss : float
        Cost of a miss.
    c_fa : float
        Cost of a false alarm.

    Returns
    -------
    dict
        `eer` in [0, 1] and `eer_threshold`, `min_dcf` (normalised) and `min_dcf_threshold`, the numbers of
        trials `n_target` and `n_nontarget`, and the mean scores `mean_target` and `mean_nontarget`.

    Raises
    ------
    ValueError
        If a class has no trial, or a score is NaN or infinite.

    Examples
    --------
    >>> summary = summarise(np.array([0.9, 0.8, 0.1]), np.array([True, True, False]))
    >>> summary["eer"], summary["n_target"], round(summary["mean_target"], 2)
    (0.0, 2, 0.85)
    """
    scores, target = np.asarray(scores, dtype=np.float64), np.asarray(target, dtype=bool)
    targets, nontargets = scores[target], scores[~target]
    eer, eer_threshold = equal_error_rate(targets, nontargets)
    cost, cost_threshold = min_dcf(targets, nontargets, p_target, c_miss, c_fa)
    return {
        "eer": eer,
        "eer_threshold": eer_threshold,
        "min_dcf": cost,
        "min_dcf_threshold": cost_threshold,
        "n_target": len(targets),
        "n_nontarget": len(nontargets),
        "mean_target": float(targets.mean()),
        "mean_nontarget": float(nontargets.mean()),
    }


def write_scores(path: str | Path, trials: Trials, scores) -> None:
    """Write one line per trial, `enrolment test label score`, as SpeechBrain's recipes do; atomically.

    Parameters
    ----------
    path : str or Path
        The text file, replaced if it exists.
    trials : Trials
        The trials.
    scores : numpy.ndarray
        Their scores, (M,).

    Examples
    --------
    >>> trials = Trials(["a/1", "a/2"], np.array([0]), np.array([1]), np.array([True]))
    >>> path = getfixture("tmp_path") / "scores.txt"
    >>> write_scores(path, trials, [0.75])
    >>> print(path.read_text().strip())
    a/1 a/2 1 0.75
    """
    ids = trials.ids
    columns = trials.enrol.tolist(), trials.test.tolist(), trials.target.tolist(), np.asarray(scores).tolist()
    with temporary_sibling(Path(path)) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for enrol, test, target, score in zip(*columns, strict=True):
                file.write(f"{ids[enrol]} {ids[test]} {int(target)} {score:.9g}\n")
        temporary.replace(path)


def format_table(summaries: Mapping[str, Mapping[str, float]]) -> str:
    """Format summaries as a table, one row per system.

    Parameters
    ----------
    summaries : mapping of str to mapping
        Name of each system to its summary, see `summarise`.

    Returns
    -------
    str
        The table, without a trailing newline.

    Examples
    --------
    >>> print(format_table({"cosine": summarise(np.array([0.9, 0.1]), np.array([True, False]))}))
    system  EER in %  minDCF  threshold  target mean  non-target mean
    cosine      0.00  0.0000     0.9000       0.9000           0.1000
    """
    header = ["system", "EER in %", "minDCF", "threshold", "target mean", "non-target mean"]
    rows = [
        [
            name,
            f"{100 * summary['eer']:.2f}",
            *(f"{summary[key]:.4f}" for key in ("min_dcf", "eer_threshold", "mean_target", "mean_nontarget")),
        ]
        for name, summary in summaries.items()
    ]
    return align_columns([header, *rows])


def align_columns(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align rows of text in columns for display.

    Parameters
    ----------
    rows : sequence of sequence of str
        The header and the rows, all of one length.
    left : int
        How many columns are left-aligned; the others hold numbers and are right-aligned.

    Returns
    -------
    str
        The lines, without a trailing newline.

    Examples
    --------
    >>> print(align_columns([["system", "EER"], ["cosine", "4.1"]]))
    system  EER
    cosine  4.1
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


BINS = 6


def eer_by_duration(scores, target, durations, edges=None) -> list[dict]:
    """Compute the equal error rate by the duration of a trial's shorter side.

    Parameters
    ----------
    scores : array_like
        Scores of the trials, (M,).
    target : array_like of bool
        Which trials are target trials, (M,).
    durations : array_like
        Seconds of the shorter side of each trial, (M,), such as
        `np.minimum(seconds[trials.enrol], seconds[trials.test])`.
    edges : sequence of float or None
        Edges of the bins in seconds, ascending; a bin includes its lower edge, the last one both. Trials outside are
        left out. None chooses up to 6 bins with equal numbers of trials.

    Returns
    -------
    list of dict
        For each bin `from` and `to` in seconds, `n_target`, `n_nontarget`, and `eer`, which is None if a class has no
        trial.

    Raises
    ------
    ValueError
        If shapes do not match, there is no trial, a duration is NaN or infinite, edges do not ascend, or a score
        is NaN or infinite.

    Examples
    --------
    >>> eer_by_duration([0.9, 0.1, 0.4], np.array([True, False, True]), [2.0, 2.5, 8.0], edges=[0, 4, 8])[0]
    {'from': 0.0, 'to': 4.0, 'n_target': 1, 'n_nontarget': 1, 'eer': 0.0}
    """
    scores, target, durations = (_to_array(values) for values in (scores, target, durations))
    if scores.ndim != 1 or not scores.shape == target.shape == durations.shape:
        raise ValueError(
            f"scores have shape {scores.shape}, target {target.shape} and durations {durations.shape}, "
            "expected one each a trial"
        )
    if not scores.size:
        raise ValueError("there are no trials, so no error rates by duration")
    if not np.isfinite(durations).all():
        raise ValueError(
            f"durations hold NaN or infinite values, first number {np.argmin(np.isfinite(durations))}"
        )
    if edges is None:
        # Distinct, as many trials may have the same duration.
        edges = np.unique(np.quantile(durations, np.linspace(0, 1, BINS + 1)))
        edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1])
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(
            f"the edges of the durations are {edges.tolist()}, expected at least two that ascend"
        )
    target = target.astype(bool)
    bins = np.searchsorted(edges, durations, side="right") - 1
    bins[durations == edges[-1]] = len(edges) - 2
    table = []
    for number, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = bins == number
        targets, nontargets = scores[inside & target], scores[inside & ~target]
        both = len(targets) > 0 and len(nontargets) > 0
        eer = equal_error_rate(targets, nontargets)[0] if both else None
        table.append(
            {"from": low, "to": high, "n_target": len(targets), "n_nontarget": len(nontargets), "eer": eer}
        )
    return table


def _to_array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
