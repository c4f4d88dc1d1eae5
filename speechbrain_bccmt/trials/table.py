"""The formats of trial lists, as columns of text; what the columns mean together is for `trials.py`.

- `voxceleb`: `label enrolment test`, label 1 (target) or 0 (non-target).
- `kaldi`: `enrolment test target|nontarget` (Kaldi, WeSpeaker; also `1|0` as last column).
- `sdsv`: the header `model-id evaluation-file-id trial-type`, then a trial a line (SdSV challenges, DeepMine).
  Its models are in an enrolment file, `model-id phrase-id utterance utterance ...`, with a header, too.
- `csv`: a header with `enrol` (or `enrolment`, `model`), `test` and `label` (or `target`, `trial-type`).
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple

from speechbrain_bccmt.trials.trial_list import AUDIO_EXTENSIONS

FORMATS = ("voxceleb", "kaldi", "sdsv", "csv")
# Labels that say no more than target or non-target; any case.
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
    """Where the columns of a trial list are.

    Attributes
    ----------
    format : str
        One of `FORMATS`.
    columns : tuple of int
        Positions of enrolment, test and label; the last is -1 where there is no label.
    width : int
        Columns a line.
    header : bool
        Whether the first line that is not blank is a header.
    delimiter : str or None
        Between columns; None for any white space.
    """

    format: str
    columns: tuple[int, int, int]
    width: int
    header: bool
    delimiter: str | None

    @property
    def expected(self) -> str:
        """What a line should look like, for messages."""
        texts = {"voxceleb": "0|1 enrolment test", "kaldi": "enrolment test target|nontarget"}
        model = "model test trial-type" if self.columns[2] >= 0 else "model test"
        return texts.get(self.format, model if self.format == "sdsv" else f"{self.width} columns and a label")


def open_text(path: Path) -> IO[str]:
    """Open a text file for reading, gzipped or not; its first bytes tell, not its name."""
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return (gzip.open if gzipped else open)(path, "rt", encoding="utf-8-sig")


def detect_layout(first: str) -> Layout | None:
    """Tell the layout of a trial list by its first line that is not blank, or None where it fits none.

    Examples
    --------
    >>> detect_layout("1 id10270/a/1.wav id10270/b/8.wav").format
    'voxceleb'
    >>> detect_layout("id10270-a-1 id10300-b-8 nontarget").format
    'kaldi'
    >>> detect_layout("model-id evaluation-file-id trial-type").format
    'sdsv'
    >>> detect_layout("label,enrol,test,gender").columns
    (1, 2, 0)
    """
    for delimiter in (",", ";", "\t", None):
        fields = next(csv.reader([first], delimiter=delimiter)) if delimiter else first.split()
        names = list(map(plain_name, fields))
        enrol, test, label = (
            next((names.index(name) for name in known if name in names), -1)
            for known in COLUMN_NAMES.values()
        )
        if enrol >= 0 and test >= 0:
            sdsv = delimiter is None and (enrol, test) == (0, 1) and len(names) <= 3
            known = "sdsv" if sdsv else "csv"
            return Layout(known, (enrol, test, label), len(fields), True, delimiter)
    fields = first.split()
    if len(fields) == 3 and fields[0] in ("0", "1"):
        return Layout("voxceleb", (1, 2, 0), 3, False, None)
    if len(fields) == 3 and fields[2].lower() in PLAIN_LABELS:
        return Layout("kaldi", (0, 1, 2), 3, False, None)
    if len(fields) == 3 and _trial_type(fields[2]) in TRIAL_TYPES:
        return Layout("sdsv", (0, 1, 2), 3, False, None)
    if len(fields) == 2:
        return Layout("sdsv", (0, 1, -1), 2, False, None)
    return None


def _trial_type(label: str) -> str:
    label = label.lower()
    return ABBREVIATIONS.get(label, label)


def parse_label(label: str, format: str = "sdsv") -> tuple[bool, str | None]:
    """Turn a label into whether it is a target trial, and its type where it tells one.

    VoxCeleb's format has 0 and 1 only; the others take all there are.

    Raises
    ------
    KeyError
        Where it is no label.

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
    """Some lines of a trial list: the line numbers, and for each column the text of each line.

    `labels` is empty where the list has none.
    """

    numbers: range | list[int]
    enrol: list[str]
    test: list[str]
    labels: list[str]
    layout: Layout


def read_blocks(path: Path, malformed: Callable[[int, str, str], None]) -> Iterator[Block]:
    """Read a trial list by blocks of lines, so that memory does not grow with the file's text.

    Parameters
    ----------
    path : Path
        The file.
    malformed : callable
        Called for each line of another number of columns: its number, its text, what was expected.

    Yields
    ------
    Block
        Lines in order, without blank ones. Labels are checked by nobody yet.

    Raises
    ------
    ValueError
        Where the file is no text, is cut off, or is no trial list.
    """
    with name_in_errors(path), open_text(path) as file:
        number, layout = 0, None
        for line in file:  # to the first line that is not blank
            number += 1
            if not line.isspace():
                layout = detect_layout(line)
                break
        else:
            return
        if layout is None:
            raise ValueError(
                f"{path}:{number}: no format of trial lists starts with `{line.strip():.120}`: expected `0|1 "
                "enrolment test`, `enrolment test target|nontarget`, `model-id evaluation-file-id trial-type` or "
                "CSV with a header of enrol, test and label"
            )
        first = "" if layout.header else line
        number += layout.header
        for chunk in _csv_chunks(first, file, layout) if layout.delimiter else _text_chunks(first, file):
            columns = _even_columns(chunk, layout.width) if isinstance(chunk, str) else None
            if columns is not None:
                numbers: range | list[int] = range(number, number + len(columns[0]))
                number += len(numbers)
            else:
                rows = list(map(str.split, chunk.split("\n"))) if isinstance(chunk, str) else chunk
                whole = []
                for line_number, row in enumerate(rows, number):
                    if len(row) == layout.width and any(map(str.strip, row)):
                        whole.append((line_number, *row))
                    elif any(map(str.strip, row)):
                        malformed(line_number, " ".join(row), layout.expected)
                number += len(rows)
                if not whole:
                    continue
                numbers, *columns = map(list, zip(*whole, strict=True))
            yield Block(numbers, *(columns[place] if place >= 0 else [] for place in layout.columns), layout)


def _csv_chunks(first: str, file: IO[str], layout: Layout) -> Iterator[list[list[str]]]:
    reader = csv.reader(chain([first] if first else [], file), delimiter=layout.delimiter)
    while chunk := list(islice(reader, _ROWS_PER_BLOCK)):
        yield chunk


def _text_chunks(first: str, file: IO[str]) -> Iterator[str]:
    """Yield some whole lines of a text at a time, without the last line's end."""
    while text := first + file.read(_CHARACTERS_PER_BLOCK):
        first = ""
        if not text.endswith("\n"):
            text += file.readline()
        yield text.removesuffix("\n")


def _even_columns(text: str, width: int) -> list[list[str]] | None:
    """Split a text whose lines all have `width` words into columns; None where one has not.

    All words at once is twice as quick as line by line. A mark at the end of each line tells whether
    each has its number of words.
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


def read_models(path: str | Path) -> Iterator[tuple[int, str, str | None, list[str]]]:
    """Read an enrolment file, `model-id phrase-id utterance utterance ...`, with or without a header.

    A header tells whether there are phrases. Without one, the first line does: there are, if its second column
    does not look like an audio file and its third does.

    Parameters
    ----------
    path : str or Path
        The file, gzipped or not; columns between white space or commas.

    Yields
    ------
    tuple
        Line number, model, phrase or None, and the names of its utterances (possibly none).
    """
    path = Path(path)
    has_phrase = None
    with name_in_errors(path), open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not (fields := line.replace(",", " ").split()):
                continue
            if has_phrase is None:
                if plain_name(fields[0]) in ("modelid", "model"):
                    has_phrase = len(fields) > 1 and plain_name(fields[1]).startswith("phrase")
                    continue
                has_phrase = len(fields) > 2 and not _is_audio(fields[1]) and _is_audio(fields[2])
            phrase = fields[1] if has_phrase and len(fields) > 1 else None
            yield number, fields[0], phrase, fields[1 + has_phrase :]


def plain_name(name: str) -> str:
    """Spell the name of a column without what differs: case, "-", "_" and blanks."""
    return re.sub(r"[\s_-]", "", name).lower()


def _is_audio(name: str) -> bool:
    return "/" in name or name.lower().endswith(AUDIO_EXTENSIONS)
