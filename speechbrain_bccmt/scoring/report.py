"""What is kept of a verification run: the score of each trial, and a summary of all."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from speechbrain_bccmt.data.atomic import temporary_sibling
from speechbrain_bccmt.data.trials import Trials
from speechbrain_bccmt.scoring.metrics import equal_error_rate, min_dcf


def summarise(
    scores, target, p_target: float = 0.01, c_miss: float = 1, c_fa: float = 1
) -> dict[str, float | int]:
    """Compute the figures that a verification run is judged by.

    Parameters
    ----------
    scores : numpy.ndarray
        One score a trial, (M,).
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
    """Write one line a trial, `enrolment test label score`, as SpeechBrain's recipes do; whole or not at all.

    Parameters
    ----------
    path : str or Path
        The text file, replaced where it exists.
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
    """Lay out summaries as a table, one row a system.

    Parameters
    ----------
    summaries : mapping of str to mapping
        Name of each system to its summary, see `summarise`.

    Returns
    -------
    str
        The table, without a newline at its end.

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
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = (
        [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        for row in [header, *rows]
    )
    return "\n".join("  ".join(line) for line in lines)
