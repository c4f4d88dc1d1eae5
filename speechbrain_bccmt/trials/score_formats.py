"""The columns of score files as text; what they mean is for `score_files.py`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_bccmt.trials.table import (
    COLUMN_NAMES,
    name_in_errors,
    open_text,
    parse_label,
    plain_name,
)

LAYOUTS = (
    "score",
    "label score",
    "score label",
    "enrol test score",
    "enrol test label score",
    "enrol test score label",
    "label enrol test score",
)
_NAMES = COLUMN_NAMES | {"score": ("score", "scores", "llr", "cosine", "similarity", "likelihoodratio")}
_LINES_PER_BLOCK = 8192  # what a cache of the processor holds
_LINES_TO_JUDGE_BY = 200


class Block(NamedTuple):
    """Some lines of a score file: line numbers, and the text of the columns that are there, by name."""

    numbers: Sequence[int]
    columns: dict[str, list[str]]


def read_blocks(path: Path, layout: str | None, malformed: list[str]) -> Iterator[Block]:
    """Read a score file by blocks of lines, so that memory does not grow with the file's text.

    Parameters
    ----------
    path : Path
        The file.
    layout : str or None
        Its columns, see `score_files.read_scores`; None to tell them by its first lines.
    malformed : list of str
        Is told of each line of another number of columns.

    Yields
    ------
    Block
        Lines in order, without blank ones. Scores and labels are checked by nobody yet.

    Raises
    ------
    ValueError
        Where the columns cannot be told, and for a file that is empty, cut off or no text.
    """
    with name_in_errors(path), open_text(path) as file:
        head, number = [], 1  # of the first line in head
        for line in file:
            if not head and line.isspace():
                number += 1
            elif len(head := [*head, line]) == _LINES_TO_JUDGE_BY:
                break
        if not head:
            raise ValueError(f"the score file {path} is empty: expected lines such as `enrol test score`")
        delimiter = next((sign for sign in (",", ";", "\t") if sign in head[0]), None)
        if layout is not None:
            names = layout.split()
            if "score" not in names or set(names) - {*_NAMES, "-"}:
                raise ValueError(
                    f"the layout `{layout}` is none: expected names such as `enrol test - score`"
                )
        elif names := _header(next(_rows(head[:1], delimiter))):
            head, number = head[1:], number + 1
        else:
            names = _guess(path, number, head, delimiter)
        if ("enrol" in names) != ("test" in names):
            raise ValueError(
                f"{path} names one side of the trials only: expected columns for enrol and test, or none"
            )
        stream, width = chain(head, file), len(names)
        while lines := list(islice(stream, _LINES_PER_BLOCK)):
            numbers: Sequence[int] = range(number, number + len(lines))
            number += len(lines)
            fields: list[str] = []
            wrong = []
            for place, row in enumerate(_rows(lines, delimiter)):
                if len(row) == width:
                    fields += row
                else:
                    wrong.append(place)
            if wrong:
                malformed += [
                    f"{path}:{numbers[place]}: expected `{' '.join(names)}`: {lines[place].strip():.120}"
                    for place in wrong
                    if not lines[place].isspace()
                ]
                numbers = np.delete(numbers, wrong).tolist()
            if fields:
                columns = {name: fields[place::width] for place, name in enumerate(names) if name != "-"}
                yield Block(numbers, columns)


def _rows(lines: Sequence[str], delimiter: str | None) -> Iterator[list[str]]:
    return (
        csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if delimiter else map(str.split, lines)
    )


def _header(fields: list[str]) -> list[str] | None:
    """Name the columns of a header, "-" for those that say nothing to us; None where it is no header."""
    names = ["-"] * len(fields)
    plain = list(map(plain_name, fields))
    for name, spellings in _NAMES.items():
        if found := [spelling for spelling in spellings if spelling in plain]:
            names[plain.index(found[0])] = name
    return names if "score" in names else None


def _guess(path: Path, number: int, head: list[str], delimiter: str | None) -> list[str]:
    """Choose the layout that fits most of the first lines; the first of equals."""
    rows = list(_rows(head, delimiter))
    fits = {layout: sum(_fits(layout.split(), row) for row in rows) for layout in LAYOUTS}
    best = max(fits, key=fits.__getitem__)
    if not fits[best]:
        raise ValueError(
            f"{path}:{number}: no layout of score files fits `{head[0].strip():.120}`: expected one of "
            f"{', '.join(f'`{layout}`' for layout in LAYOUTS)}, or a header with the column `score`"
        )
    if best == "enrol test score" and all(row[-1] in ("0", "1") for row in rows if len(row) == 3):
        raise ValueError(
            f"{path} looks like a trial list, `enrol test 0|1`. If these are scores, give the layout `{best}`"
        )
    return best.split()


def _fits(names: list[str], row: list[str]) -> bool:
    if len(row) != len(names):
        return False
    try:
        for name, text in zip(names, row, strict=True):
            if name == "score":
                float(text)
            elif name == "label":
                parse_label(text)
    except (ValueError, KeyError):
        return False
    return True
