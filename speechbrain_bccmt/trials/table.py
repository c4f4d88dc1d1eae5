"""The reader of text tables: trial lists, score files and key files, as columns.

`read`, `scores` and `evaluation.conditions` interpret the columns. Formats of trial lists:

- `voxceleb`: `label enrolment test`, label 1 (target) or 0 (non-target).
- `kaldi`: `enrolment test target|nontarget` (Kaldi, WeSpeaker; also `1|0` as last column).
- `sdsv`: the header `model-id evaluation-file-id trial-type`, then one trial per line (SdSV challenges, DeepMine).
  Its models are in an enrolment file, `model-id phrase-id utterance utterance ...`, also with a header.
- `csv`: a header with `enrol` (or `enrolment`, `model`), `test` and `label` (or `target`, `trial-type`).
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple

FORMATS = ("voxceleb", "kaldi", "sdsv", "csv")
# Labels that only say target or non-target; any case.
PLAIN_LABELS = {
    **dict.fromkeys(("1", "target", "tgt", "true"), True),
    **dict.fromkeys(("0", "nontarget", "non-target", "imp", "impostor", "false"), False),
}
# Trial types of text-dependent verification: the speaker (target, impostor) and the phrase (correct, wrong).
TRIAL_TYPES = {
    "target-correct": True,
    "target-wrong": False,
    "impostor-correct": False,
    "impostor-wrong": False,
}
ABBREVIATIONS = {
    "tc": "target-correct",
    "tw": "target-wrong",
    "ic": "impostor-correct",
    "iw": "impostor-wrong",
}
COLUMN_NAMES = {
    "enrol": ("enrol", "enroll", "enrolment", "enrollment", "model", "modelid", "enrolid", "enrollid"),
    "test": ("test", "testid", "evaluationfileid", "segmentid", "evalfileid"),
    "label": ("label", "target", "trialtype", "type", "key"),
}
_ROWS_PER_BLOCK = 32768  # of CSV
_CHARACTERS_PER_BLOCK = 1 << 21  # of other text
_END = "\0"


class Layout(NamedTuple):
    """Where the columns of a table are.

    Attributes
    ----------
    columns : dict of str to int
        Name of each column read to its position.
    width : int
        Columns per line.
    header : bool
        Whether the first non-blank line is a header.
    delimiter : str or None
        The separator of columns; None for any white space.
    expected : str
        What a line should look like, for messages.
    format : str
        Format of a trial list, one of `FORMATS`.
    """

    columns: dict[str, int]
    width: int
    header: bool
    delimiter: str | None
    expected: str
    format: str = ""


def open_text(path: Path) -> IO[str]:
    """Open a text file for reading, gzipped or not; detected from its first bytes, not its name."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return (gzip.open if gzipped else open)(path, "rt", encoding="utf-8-sig")


def detect_layout(first: str) -> Layout | None:
    """Detect the layout of a trial list from its first non-blank line; None if it fits none.

    Examples
    --------
    >>> detect_layout("1 id10270/a/1.wav id10270/b/8.wav").format
    'voxceleb'
    >>> detect_layout("id10270-a-1 id10300-b-8 nontarget").format
    'kaldi'
    >>> detect_layout("model-id evaluation-file-id trial-type").format
    'sdsv'
    >>> detect_layout("label,enrol,test,gender").columns
    {'enrol': 1, 'test': 2, 'label': 0}
    """
    for delimiter in (",", ";", "\t", None):
        fields = split_line(first, delimiter)
        names = list(map(plain_name, fields))
        places = {
            column: next((names.index(name) for name in known if name in names), -1)
            for column, known in COLUMN_NAMES.items()
        }
        if places["enrol"] >= 0 and places["test"] >= 0:
            sdsv = delimiter is None and (places["enrol"], places["test"]) == (0, 1) and len(names) <= 3
            label = places["label"] >= 0
            expected = f"model test{' trial-type' * label}" if sdsv else f"{len(fields)} columns and a label"
            places = {column: place for column, place in places.items() if place >= 0}
            return Layout(places, len(fields), True, delimiter, expected, "sdsv" if sdsv else "csv")
    fields = first.split()
    if len(fields) == 3 and fields[0] in ("0", "1"):
        return _headless("label enrol test", "0|1 enrolment test", "voxceleb")
    if len(fields) == 3 and fields[2].lower() in PLAIN_LABELS:
        return _headless("enrol test label", "enrolment test target|nontarget", "kaldi")
    if len(fields) == 3 and _trial_type(fields[2]) in TRIAL_TYPES:
        return _headless("enrol test label", "model test trial-type", "sdsv")
    return _headless("enrol test", "model test", "sdsv") if len(fields) == 2 else None


def _headless(columns: str, expected: str, format: str) -> Layout:
    names = columns.split()
    return Layout(
        {name: place for place, name in enumerate(names)}, len(names), False, None, expected, format
    )


def _trial_type(label: str) -> str:
    label = label.lower()
    return ABBREVIATIONS.get(label, label)


def parse_label(label: str, format: str = "sdsv") -> tuple[bool, str | None]:
    """Return whether a label marks a target trial, and its type if it has one.

    VoxCeleb's format has only 0 and 1; the others accept all labels.

    Raises
    ------
    KeyError
        If it is not a label.

    Examples
    --------
    >>> parse_label("nontarget"), parse_label("TW")
    ((False, None), (False, 'target-wrong'))
    """
    if format == "voxceleb" and label not in ("0", "1"):
        raise KeyError(label)
    plain = PLAIN_LABELS.get(label.lower())
    if plain is not None:
        return plain, None
    kind = _trial_type(label)
    return TRIAL_TYPES[kind], kind


class Block(NamedTuple):
    """Some lines of a table: the line numbers, and the text of the columns present, by name."""

    numbers: Sequence[int]
    columns: dict[str, list[str]]
    layout: Layout


def read_table(
    path: Path, detect: Callable[[int, list[str]], Layout], malformed: list[str], head: int = 1
) -> Iterator[Block]:
    """Read a text table in blocks of lines, so memory does not grow with the file.

    Parameters
    ----------
    path : Path
        The file, gzipped or not.
    detect : callable
        Returns the layout, given the number of the first non-blank line and `head` lines from there on.
    malformed : list of str
        Receives a message for each line with a different number of columns.
    head : int
        Number of lines that `detect` gets, if there are that many.

    Yields
    ------
    Block
        Lines in order, without blank ones. The contents of the columns are not checked.

    Raises
    ------
    ValueError
        If the file is not text or is truncated, or `detect` raises it.
    """
    with name_in_errors(path), open_text(path) as file:
        number, lines = 1, []
        for line in file:
            if not lines and line.isspace():
                number += 1
            elif len(lines := [*lines, line]) == head:
                break
        if not lines:
            return
        layout = detect(number, lines)
        number += layout.header
        first = "".join(lines[layout.header :])
        for chunk in _csv_chunks(first, file, layout) if layout.delimiter else _text_chunks(first, file):
            columns = _even_columns(chunk, layout.width) if isinstance(chunk, str) else None
            if columns is not None:
                numbers: Sequence[int] = range(number, number + len(columns[0]))
                number += len(numbers)
            else:
                rows = list(map(str.split, chunk.split("\n"))) if isinstance(chunk, str) else chunk
                whole = []
                for line_number, row in enumerate(rows, number):
                    if len(row) == layout.width and any(map(str.strip, row)):
                        whole.append((line_number, *row))
                    elif any(map(str.strip, row)):
                        text = (layout.delimiter or " ").join(row)
                        malformed.append(f"{path}:{line_number}: expected `{layout.expected}`: {text:.120}")
                number += len(rows)
                if not whole:
                    continue
                numbers, *columns = map(list, zip(*whole, strict=True))
            yield Block(numbers, {name: columns[place] for name, place in layout.columns.items()}, layout)


def split_line(line: str, delimiter: str | None) -> list[str]:
    """Split a line at a delimiter, by the rules of CSV, or at white space."""
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True)) if delimiter else line.split()


def find_delimiter(line: str) -> str | None:
    """Return the delimiter of a line, None for white space."""
    return next((sign for sign in (",", ";", "\t") if sign in line), None)


def _csv_chunks(first: str, file: IO[str], layout: Layout) -> Iterator[list[list[str]]]:
    lines = chain(first.splitlines(keepends=True), file)
    reader = csv.reader(lines, delimiter=layout.delimiter, skipinitialspace=True)
    while chunk := list(islice(reader, _ROWS_PER_BLOCK)):
        yield chunk


def _text_chunks(first: str, file: IO[str]) -> Iterator[str]:
    """Yield a text in chunks of whole lines, without the final line break."""
    while text := first + file.read(_CHARACTERS_PER_BLOCK):
        first = ""
        if not text.endswith("\n"):
            text += file.readline()
        yield text.removesuffix("\n")


def _even_columns(text: str, width: int) -> list[list[str]] | None:
    """Split a text whose lines all have `width` words into columns; None if one does not.

    Splitting all words at once is twice as fast as line by line. A mark at the end of each line shows whether each has
    the right number of words.
    """
    if _END in text:
        return None
    words = (text + "\n").replace("\n", f" {_END} ").split()
    lines, rest = divmod(len(words), width + 1)
    if rest or words.count(_END) != lines or set(words[width :: width + 1]) != {_END}:
        return None
    return [words[place :: width + 1] for place in range(width)]


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Name the file in the errors of a text that cannot be decoded or decompressed."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is cut off or damaged: {error}") from error
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from error


def plain_name(name: str) -> str:
    """Normalise the name of a column: lower case, without "-", "_" and blanks."""
    return re.sub(r"[\s_-]", "", name).lower()
