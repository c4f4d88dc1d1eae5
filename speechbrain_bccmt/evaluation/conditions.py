"""Error rates by condition: gender, duration, type of trial, or whatever a key file says about each trial.

A key file has a header and one line per trial, as CSV or separated by white space: `enrol`, `test`, and any further
columns. Each further column is a condition, and each of its values selects trials:

    enrol test gender duration
    id1/a/1 id1/b/2 f 3.2
    id1/a/1 id2/c/1 f 11.0
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from speechbrain_bccmt.evaluation.summary import align_columns, summarise
from speechbrain_bccmt.trials.read import first_few
from speechbrain_bccmt.trials.table import (
    COLUMN_NAMES,
    Layout,
    find_delimiter,
    plain_name,
    read_table,
    split_line,
)
from speechbrain_bccmt.trials.trial_list import TrialIndex, Trials

logger = logging.getLogger(__name__)

POOLED = "pooled"
_MOST_VALUES = 30  # of a condition, so that a column of names is not taken for one
_SIDES = "side:enrol", "side:test"  # no column of the file has such a name


def read_conditions(
    path: str | Path, trials: Trials, edges: Mapping[str, Sequence[float]] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    r"""Read which trials belong to which condition.

    Parameters
    ----------
    path : str or Path
        The key file, gzipped or not. Its trials may be in any order and include others.
    trials : Trials
        The trials to look up.
    edges : mapping of str to sequence of float, optional
        Where to divide columns of numbers, such as durations in seconds. A column of numbers without edges is divided
        at its quartiles if it has more than 30 values.

    Returns
    -------
    dict of str to dict of str to numpy.ndarray
        Column to value to (M,) booleans, which trials have it. Columns in the order of the file, values sorted. A
        column `label` is not a condition.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For lines with a different number of columns, a trial with two different lines (with line numbers), trials that
        the file lacks, a file without conditions, columns with too many values, and edges for an unknown column.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "key.txt"
    >>> _ = path.write_text("enrol test gender seconds\na/1 a/2 f 2.5\na/1 b/1 m 7\n")
    >>> trials = Trials(["a/1", "a/2", "b/1"], np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    >>> conditions = read_conditions(path, trials, edges={"seconds": [5]})
    >>> {name: [(value, mask.tolist()) for value, mask in by.items()] for name, by in conditions.items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'gender': [('f', [True, False]), ('m', [False, True])],
     'seconds': [('below 5', [True, False]), ('5 and above', [False, True])]}
    """
    path = Path(path)
    edges = {name: values for name, values in (edges or {}).items() if len(values)}
    if not path.is_file():
        raise FileNotFoundError(f"no key file at {path}")
    names, lines_of, codes, values = _read(path, trials)
    if unknown := [name for name in edges if name not in names]:
        raise ValueError(
            f"edges are given for {unknown[0]}, but the conditions of {path} are {', '.join(names)}"
        )
    if (missing := np.flatnonzero(lines_of == 0)).size:
        first = trials.enrolment_ids[trials.enrol[missing[0]]], trials.ids[trials.test[missing[0]]]
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(trials)} trials, the first number {missing[0] + 1}: "
            f"{' '.join(first)}"
        )
    return {
        name: _masks(path, name, codes[column], list(values[column]), edges.get(name))
        for column, name in enumerate(names)
    }


def _read(path: Path, trials: Trials) -> tuple[list[str], np.ndarray, np.ndarray, list[dict[str, int]]]:
    """Read the names of conditions, the line of each trial (0: none), and its values as codes."""
    index, complaints = TrialIndex(trials), []
    line_of, names = np.zeros(len(trials), np.int64), []
    codes, values = np.zeros((0, len(trials)), np.int64), []
    for block in read_table(path, partial(_detect_layout, path), complaints):
        if not names:
            names = [name for name in block.columns if name not in _SIDES]
            codes = np.zeros((len(names), len(trials)), np.int64)
            values = [{} for _ in names]
        found = index.find(*(block.columns[side] for side in _SIDES))
        listed = np.flatnonzero(found >= 0)
        numbers = np.asarray(block.numbers)[listed]
        for place, (name, known) in enumerate(zip(names, values, strict=True)):
            column = block.columns[name]
            new = np.array([known.setdefault(column[row], len(known)) for row in listed], np.int64)
            _compare(path, found[listed], numbers, new, line_of, codes[place], complaints)
            codes[place, found[listed]] = new
        line_of[found[listed]] = numbers
    if complaints:
        raise ValueError(f"{len(complaints)} malformed lines in a key file:{first_few(complaints)}")
    if not names:
        raise ValueError(
            f"{path}:1: expected a header `enrol test` and columns of conditions, and a line a trial"
        )
    return names, line_of, codes, values


def _detect_layout(path: Path, number: int, head: list[str]) -> Layout:
    delimiter = find_delimiter(head[0])
    fields = split_line(head[0].strip(), delimiter)
    plain = list(map(plain_name, fields))
    enrol, test = (
        next((plain.index(known) for known in COLUMN_NAMES[side] if known in plain), -1)
        for side in ("enrol", "test")
    )
    # A condition may be called "type"; only the column that labels trials is left out.
    conditions = {
        fields[place]: place
        for place, name in enumerate(plain)
        if place not in (enrol, test) and name != "label"
    }
    if enrol < 0 or test < 0 or not conditions:
        raise ValueError(
            f"{path}:{number}: expected a header `enrol test` and columns of conditions, such as gender: "
            f"{head[0].strip():.120}"
        )
    columns = dict(zip(_SIDES, (enrol, test), strict=True)) | conditions
    return Layout(columns, len(fields), True, delimiter, " ".join(fields))


def _compare(path: Path, found, numbers, new, line_of, codes, complaints: list[str]) -> None:
    """Complain about trials that have another value in an earlier block, or twice in this one."""
    before = np.flatnonzero((line_of[found] > 0) & (codes[found] != new))
    complaints += [
        f"{path}:{numbers[row]}: the trial of line {line_of[found[row]]} with another value" for row in before
    ]
    _, first, which = np.unique(found, return_index=True, return_inverse=True)
    complaints += [
        f"{path}:{numbers[row]}: the trial of line {numbers[first[which[row]]]} with another value"
        for row in np.flatnonzero(new != new[first[which]])
    ]


def _masks(path: Path, name: str, codes: np.ndarray, values: list[str], edges) -> dict[str, np.ndarray]:
    """Select the trials of each value, or of each range of values."""
    try:
        numbers = np.array(values, dtype=np.float64)
    except ValueError:
        numbers = None
    if numbers is not None and not np.isfinite(numbers).all():
        numbers = None
    if edges is None and len(values) > _MOST_VALUES and numbers is not None:
        edges = np.unique(np.quantile(numbers[codes], (0.25, 0.5, 0.75)))
    if edges is not None:
        if numbers is None:
            raise ValueError(
                f"the condition {name} of {path} is to be divided, but not all its values are numbers"
            )
        edges = np.unique(np.asarray(edges, dtype=np.float64))
        texts = [f"{edge:g}" for edge in edges]
        ranges = [f"{low} to {high}" for low, high in zip(texts, texts[1:], strict=False)]
        labels = [f"below {texts[0]}", *ranges, f"{texts[-1]} and above"]
        part = np.searchsorted(edges, numbers, side="right")[codes]
        return {label: mask for number, label in enumerate(labels) if (mask := part == number).any()}
    if len(values) > _MOST_VALUES:
        raise ValueError(
            f"the condition {name} of {path} has {len(values)} values, such as {values[0]}: at most {_MOST_VALUES} "
            "make a table"
        )
    order = np.argsort(numbers, kind="stable") if numbers is not None else np.argsort(values)
    return {values[code]: codes == code for code in order}


def summarise_conditions(
    scores,
    target,
    conditions: Mapping[str, Mapping[str, np.ndarray]],
    p_target: float = 0.01,
    c_miss: float = 1,
    c_fa: float = 1,
) -> dict[tuple[str, str], dict]:
    """Evaluate a system on all trials, and on those of each condition.

    Parameters
    ----------
    scores : array_like
        One score per trial, (M,).
    target : array_like of bool
        Which trials are target trials, (M,).
    conditions : mapping
        As returned by `read_conditions`.
    p_target, c_miss, c_fa : float
        For `min_dcf`.

    Returns
    -------
    dict of (str, str) to dict
        By condition and value, first `("pooled", "")`: the result of `summarise`. Where a class has no trials, only
        `n_target`, `n_nontarget`, `eer` and `min_dcf`, both None.

    Raises
    ------
    ValueError
        If a class has no trial at all, a score is NaN or infinite, or a mask is not of the trials' length.

    Examples
    --------
    >>> masks = {"gender": {"f": np.array([True, True, True, False]), "m": np.array([False, False, False, True])}}
    >>> table = summarise_conditions([0.9, 0.8, 0.1, 0.3], [True, True, False, False], masks)
    >>> {name: row["eer"] for name, row in table.items()}
    {('pooled', ''): 0.0, ('gender', 'f'): 0.0, ('gender', 'm'): None}
    """
    scores, target = np.asarray(scores, dtype=np.float64), np.asarray(target, dtype=bool)
    costs = {"p_target": p_target, "c_miss": c_miss, "c_fa": c_fa}
    table = {(POOLED, ""): summarise(scores, target, **costs)}
    for name, by_value in conditions.items():
        for value, mask in by_value.items():
            if mask.shape != scores.shape:
                raise ValueError(
                    f"{name} {value} covers {mask.shape} trials, but there are {scores.shape} scores"
                )
            n_target = int(target[mask].sum())
            n_nontarget = int(mask.sum()) - n_target
            if n_target and n_nontarget:
                table[name, value] = summarise(scores[mask], target[mask], **costs)
            else:
                counts = {"n_target": n_target, "n_nontarget": n_nontarget}
                table[name, value] = {"eer": None, "min_dcf": None} | counts
    return table


def format_condition_table(table: Mapping[tuple[str, str], Mapping]) -> str:
    """Format the result of `summarise_conditions` as a table; rows that lack a class say which.

    Examples
    --------
    >>> masks = {"gender": {"f": np.array([True, True]), "m": np.array([False, True])}}
    >>> print(format_condition_table(summarise_conditions([0.9, 0.1], [True, False], masks)))
    condition  value  targets  non-targets  EER in %  minDCF
    pooled                  1            1      0.00  0.0000
    gender     f            1            1      0.00  0.0000
    gender     m            0            1         -       -  no target trials
    """
    rows = [["condition", "value", "targets", "non-targets", "EER in %", "minDCF"]]
    notes = [""]
    for (name, value), row in table.items():
        none = row["eer"] is None
        figures = ["-", "-"] if none else [f"{100 * row['eer']:.2f}", f"{row['min_dcf']:.4f}"]
        rows.append([name, value, f"{row['n_target']:,}", f"{row['n_nontarget']:,}", *figures])
        lacking = [
            kind for kind, key in (("target", "n_target"), ("non-target", "n_nontarget")) if not row[key]
        ]
        notes.append(f"  no {' and no '.join(lacking)} trials" if none else "")
    lines = align_columns(rows, left=2).split("\n")
    return "\n".join((line + note).rstrip() for line, note in zip(lines, notes, strict=True))
