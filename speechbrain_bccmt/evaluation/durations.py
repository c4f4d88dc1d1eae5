"""Error rates by the duration of a trial's shorter side."""

import numpy as np
import torch

from speechbrain_bccmt.scoring.metrics import equal_error_rate

BINS = 6


def eer_by_duration(scores, target, durations, edges=None) -> list[dict]:
    """Compute the equal error rate of trials whose shorter side lasts about as long.

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
        Edges of the bins in seconds, ascending; a bin holds its lower edge, the last one both. Trials outside
        are left out. None chooses up to 6 bins of as many trials.

    Returns
    -------
    list of dict
        For each bin `from` and `to` in seconds, `n_target`, `n_nontarget`, and `eer`, which is None where a
        class has no trial.

    Raises
    ------
    ValueError
        If shapes do not fit, there is no trial, a duration is NaN or infinite, edges do not ascend, or a score
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
        # Distinct, as many trials may last as long as each other.
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
