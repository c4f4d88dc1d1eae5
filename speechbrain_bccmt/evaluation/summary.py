"""What is kept of a verification run: the score of each trial, and a summary of all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.scoring.metrics import equal_error_rate, min_dcf
from speechbrain_bccmt.trials.read import Trials


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
    return align_columns([header, *rows])


def align_columns(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay out rows of texts as columns for a screen.

    Parameters
    ----------
    rows : sequence of sequence of str
        The header and the rows, all of one length.
    left : int
        How many columns begin at the left; the others hold numbers, and end at the right.

    Returns
    -------
    str
        The lines, without a newline at the end.

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
