"""Error rates by type of trial, for text-dependent verification, and the cost of the SdSV challenge.

A trial should be accepted only if the right speaker says the right phrase (target-correct). The other types fail
differently, so each is evaluated on its own against the target-correct trials: the right speaker with a wrong phrase,
an impostor with the right phrase, an impostor with a wrong phrase; and all together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from speechbrain_bccmt.evaluation.summary import align_columns, summarise
from speechbrain_bccmt.scoring.metrics import min_dcf
from speechbrain_bccmt.trials.table import TRIAL_TYPES

# Of the SdSV challenge 2020 (evaluation plan v1.0): costs of a miss and a false alarm, prior of a target.
SDSV_COST = {"p_target": 0.01, "c_miss": 10, "c_fa": 1}
TARGET = "target-correct"
NONTARGETS = tuple(name for name, is_target in TRIAL_TYPES.items() if not is_target)
POOLED = "pooled"
# The non-target trials of the SdSV challenge: no impostor there says a wrong phrase.
SDSV_POOLED = "pooled without impostor-wrong"


def sdsv_cost(target_scores, nontarget_scores) -> tuple[float, float]:
    """Compute the minimum detection cost of the SdSV challenge: a miss costs 10, a false alarm 1, prior 0.01.

    Parameters
    ----------
    target_scores : array_like
        Scores of the target-correct trials.
    nontarget_scores : array_like
        Scores of the other trials.

    Returns
    -------
    cost : float
        In [0, 1]: divided by 0.1, the cost of rejecting all. The challenge calls it normalised minDCF.
    threshold : float
        Where it is reached.

    Examples
    --------
    >>> sdsv_cost([0.5, 0.6, 0.7, 0.9], [0.1, 0.2, 0.3, 0.6])
    (0.5, 0.7)
    """
    return min_dcf(target_scores, nontarget_scores, **SDSV_COST)


def summarise_types(
    scores,
    trial_type,
    trial_types: Sequence[str] = tuple(TRIAL_TYPES),
    p_target: float = 0.01,
    c_miss: float = 1,
    c_fa: float = 1,
) -> dict[str, dict[str, float | int]]:
    """Evaluate a system on each type of non-target trials, and on all of them.

    Parameters
    ----------
    scores : array_like
        One score per trial, (M,).
    trial_type : array_like
        Type of each trial, (M,): its name, or its index into `trial_types`.
    trial_types : sequence of str
        The types that indices refer to, as in `Trials.trial_types`.
    p_target, c_miss, c_fa : float
        For `min_dcf`; the SdSV cost is computed as well.

    Returns
    -------
    dict of str to dict
        By type of non-target trials (those that occur), then `"pooled"`, and `"pooled without impostor-wrong"`, the
        challenge's trials, if this differs. Each is the result of `summarise`, plus `sdsv_cost` and
        `sdsv_cost_threshold`.

    Raises
    ------
    ValueError
        If there are no target-correct or no other trials, a type is unknown, the lengths differ, or a
        score is NaN or infinite.

    Examples
    --------
    >>> kinds = ["target-correct", "target-correct", "target-wrong", "impostor-correct"]
    >>> table = summarise_types([0.9, 0.6, 0.7, 0.1], kinds)
    >>> {name: row["eer"] for name, row in table.items()}
    {'target-wrong': 0.5, 'impostor-correct': 0.0, 'pooled': 0.5}
    """
    scores = np.asarray(scores, dtype=np.float64)
    code = _type_codes(trial_type, trial_types)
    if scores.shape != code.shape:
        raise ValueError(f"{scores.shape} scores for {code.shape} types of trials: expected one each")
    is_type = {name: code == number for number, name in enumerate(TRIAL_TYPES)}
    if not is_type[TARGET].any():
        raise ValueError("there are no target-correct trials: error rates need them")
    present = [name for name in NONTARGETS if is_type[name].any()]
    if not present:
        raise ValueError(
            f"there are only target-correct trials: error rates need some of {', '.join(NONTARGETS)}"
        )
    rows = {name: [name] for name in present} | {POOLED: present}
    sdsv = [name for name in present if name != "impostor-wrong"]
    if sdsv and sdsv != present:
        rows[SDSV_POOLED] = sdsv
    costs = {"p_target": p_target, "c_miss": c_miss, "c_fa": c_fa}
    table = {}
    for name, pooled in rows.items():
        nontarget = np.logical_or.reduce([is_type[kind] for kind in pooled])
        chosen = is_type[TARGET] | nontarget
        summary = summarise(scores[chosen], is_type[TARGET][chosen], **costs)
        cost, threshold = sdsv_cost(scores[is_type[TARGET]], scores[nontarget])
        table[name] = summary | {"sdsv_cost": cost, "sdsv_cost_threshold": threshold}
    return table


def _type_codes(trial_type, trial_types: Sequence[str]) -> np.ndarray:
    """Return each trial's type as index into `TRIAL_TYPES`."""
    known = list(TRIAL_TYPES)
    found = np.asarray(trial_type)
    if np.issubdtype(found.dtype, np.integer):
        if found.size and not 0 <= found.min() <= found.max() < len(trial_types):
            raise ValueError(
                f"trial_type holds indices {found.min()} to {found.max()}, but there are {len(trial_types)} "
                f"trial_types"
            )
        names, index = np.asarray(trial_types, dtype=object), found
    else:
        names, index = np.unique(found.astype(str), return_inverse=True)
        index = index.reshape(found.shape)
    used = set(np.unique(index).tolist())
    if unknown := [str(name) for number, name in enumerate(names) if number in used and name not in known]:
        raise ValueError(f"no such type of trial as '{unknown[0]}': expected {', '.join(known)}")
    codes = np.array([known.index(name) if name in known else -1 for name in names.tolist()], dtype=np.int8)
    return codes[index] if len(codes) else np.empty(0, np.int8)


def format_type_table(table: Mapping[str, Mapping[str, float]]) -> str:
    """Format the result of `summarise_types` as a table, one row for each kind of non-target trials.

    Examples
    --------
    >>> print(format_type_table(summarise_types([0.9, 0.1], ["target-correct", "target-wrong"])))
    non-target trials  trials  EER in %  minDCF  SdSV cost
    target-wrong            1      0.00  0.0000     0.0000
    pooled                  1      0.00  0.0000     0.0000
    """
    rows = [["non-target trials", "trials", "EER in %", "minDCF", "SdSV cost"]]
    for name, row in table.items():
        figures = f"{100 * row['eer']:.2f}", f"{row['min_dcf']:.4f}", f"{row['sdsv_cost']:.4f}"
        rows.append([name, f"{row['n_nontarget']:,}", *figures])
    return align_columns(rows)
