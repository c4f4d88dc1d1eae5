"""Trial lists: which pairs of utterances to compare, and which of them share a speaker.

Reads the formats of the field, see `table`; `trial_list` defines what a list is, `write` writes lists, and `draw` draws
them. VoxCeleb's format, for example, has one trial per line, `label enrolment test`, with
label 1 for a target trial (one speaker) and 0 for a non-target trial (two speakers):

    1 id10270/5r0dWxy17C8/00001.wav id10270/8jEAjG6SegY/00008.wav
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_bccmt.trials.draw import make_trials, make_trials_from_csv
from speechbrain_bccmt.trials.table import (
    Layout,
    detect_layout,
    name_in_errors,
    open_text,
    parse_label,
    plain_name,
    read_table,
)
from speechbrain_bccmt.trials.trial_list import (
    AUDIO_EXTENSIONS,
    EnrolmentModel,
    Trials,
    speaker_of,
    utterance_id,
)
from speechbrain_bccmt.trials.write import format_trials, write_models, write_trials

__all__ = [
    "AUDIO_EXTENSIONS",
    "EnrolmentModel",
    "Trials",
    "format_trials",
    "make_trials",
    "make_trials_from_csv",
    "read_trials",
    "speaker_of",
    "utterance_id",
    "write_models",
    "write_trials",
]

logger = logging.getLogger(__name__)

_SHOWN = 5  # lines or names that a message lists before it only counts


def first_few(complaints: list[str], total: int | None = None) -> str:
    """Format the first lines of a complaint and count the rest, out of `total` if not all are given."""
    rest = (len(complaints) if total is None else total) - _SHOWN
    return "\n".join(["", *complaints[:_SHOWN]]) + (f"\n... and {rest} more" if rest > 0 else "")


class NameIndex(dict):
    """Map from a name as spelled in a file to the index of its id; a new name gets one on lookup."""

    def __init__(self, to_id=utterance_id):
        super().__init__()
        self.ids: dict[str, int] = {}
        self.to_id = to_id

    def __missing__(self, name: str) -> int:
        index = self[name] = self.ids.setdefault(self.to_id(name), len(self.ids))
        return index

    def indices(self, names) -> np.ndarray:
        return np.fromiter(map(self.__getitem__, names), np.int64)


class _Columns(NamedTuple):
    """A trial list as numbers, one element per line; `codes` are indices into `labels`."""

    numbers: np.ndarray
    enrol: np.ndarray
    test: np.ndarray
    codes: np.ndarray
    labels: list[tuple[bool, str | None]]

    def take(self, rows: np.ndarray) -> _Columns:
        return _Columns(*(column[rows] for column in self[:4]), self.labels)


def _read_columns(path: Path, enrolled: NameIndex, tested: NameIndex) -> _Columns:
    """Read a trial list; if both columns are utterances, `enrolled` is `tested`."""
    if not path.is_file():
        raise FileNotFoundError(f"no trial list at {path}")
    parts, malformed, labels = [], [], {}

    def detect(number: int, lines: list[str]) -> Layout:
        if layout := detect_layout(lines[0]):
            return layout
        raise ValueError(
            f"{path}:{number}: no format of trial lists starts with `{lines[0].strip():.120}`: expected `0|1 "
            "enrolment test`, `enrolment test target|nontarget`, `model-id evaluation-file-id trial-type` or "
            "CSV with a header of enrol, test and label"
        )

    for block in read_table(path, detect, malformed):
        enrol, test = block.columns["enrol"], block.columns["test"]
        texts = block.columns.get("label", [])
        for label in set(texts).difference(labels):
            try:
                labels[label] = len(labels), parse_label(label, block.layout.format)
            except KeyError:
                malformed += [
                    f"{path}:{number}: expected `{block.layout.expected}`: {' '.join(row):.120}"
                    for number, *row in zip(block.numbers, enrol, test, texts, strict=True)
                    if row[2] == label
                ]
        if malformed:
            continue  # there will be no list, but all lines are checked
        if enrolled is tested:
            both = tested.indices(chain.from_iterable(zip(enrol, test, strict=True)))
            enrol, test = both[0::2], both[1::2]
        else:
            enrol, test = enrolled.indices(enrol), tested.indices(test)
        codes = {label: code for label, (code, _) in labels.items()}
        codes = np.fromiter(map(codes.__getitem__, texts), np.uint8)
        parts.append((np.asarray(block.numbers, np.int64), enrol, test, codes))
    if malformed:
        raise ValueError(f"{len(malformed)} malformed lines in a trial list:{first_few(malformed)}")
    if not parts:
        raise ValueError(
            f"the trial list {path} holds no trials: expected lines such as `0|1 enrolment test`"
        )
    return _Columns(
        *map(np.concatenate, zip(*parts, strict=True)), [meaning for _, meaning in labels.values()]
    )


def _refuse_unknown(path: Path, columns: _Columns, side: str, ids, known, what: str) -> None:
    """Raise if a column names unknown ids, with the first line of each."""
    unknown = np.array([index for index, name in enumerate(ids) if name not in known], np.int64)
    sides = {"enrol": [columns.enrol], "test": [columns.test], "both": [columns.enrol, columns.test]}[side]
    rows = np.flatnonzero(np.logical_or.reduce([np.isin(column, unknown) for column in sides]))
    if not rows.size:
        return
    names, lines = list(ids), {}
    strange = set(unknown.tolist())
    for row in rows.tolist():
        for column in sides:
            if (index := int(column[row])) in strange:
                lines.setdefault(index, f"{path}:{columns.numbers[row]}: no {what} {names[index]}")
    raise ValueError(f"{len(lines)} {what}s of a trial list do not exist:{first_few(list(lines.values()))}")


def _without_repeats(path: Path, columns: _Columns) -> _Columns:
    """Keep the first of equal trials with a warning; reject a pair with two labels."""
    pairs = columns.enrol * (int(columns.test.max()) + 1) + columns.test
    ordered = np.sort(pairs)
    if not (ordered[1:] == ordered[:-1]).any():
        return columns
    _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
    original = first[which]
    repeats = np.flatnonzero(original != np.arange(len(pairs)))
    meanings = np.array([columns.labels.index(label) for label in columns.labels] or [0])
    lines = columns.numbers.tolist()
    other = meanings[columns.codes[repeats]] != meanings[columns.codes[original[repeats]]]
    contradictory = [
        f"{path}:{lines[row]}: the pair of line {lines[original[row]]} again, with the other label"
        for row in repeats[other]
    ]
    if contradictory:
        raise ValueError(f"{len(contradictory)} malformed lines in a trial list:{first_few(contradictory)}")
    shown = [f"{path}:{lines[row]}: repeats line {lines[original[row]]}" for row in repeats]
    logger.warning("%d repeated trials are counted once:%s", len(shown), first_few(shown))
    return columns.take(np.sort(first))


def _read_enrolment(path: Path) -> dict[str, tuple[int, str | None, list[str]]]:
    """Read an enrolment file: model to line number, phrase and ids of its utterances."""
    if not path.is_file():
        raise FileNotFoundError(f"no enrolment file at {path}")
    models, malformed = {}, []
    for number, model, phrase, names in read_models(path):
        utterances = [utterance_id(name) for name in names]
        if model in models:
            malformed.append(f"{path}:{number}: model {model} of line {models[model][0]} again")
        elif not utterances:
            malformed.append(f"{path}:{number}: model {model} has no utterance")
        elif len(set(utterances)) < len(utterances):
            malformed.append(f"{path}:{number}: model {model} has an utterance twice")
        else:
            models[model] = number, phrase, utterances
    if malformed:
        raise ValueError(f"{len(malformed)} malformed lines in an enrolment file:{first_few(malformed)}")
    if not models:
        raise ValueError(
            f"the enrolment file {path} holds no models: expected `model-id phrase-id utterance ...`"
        )
    return models


def read_models(path: str | Path) -> Iterator[tuple[int, str, str | None, list[str]]]:
    """Read an enrolment file, `model-id phrase-id utterance utterance ...`, with or without a header.

    A header shows whether there are phrases. Without one, the first line does: there are if its second column does not
    look like an audio file and its third does.

    Parameters
    ----------
    path : str or Path
        The file, gzipped or not; columns separated by white space or commas.

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


def _is_audio(name: str) -> bool:
    return "/" in name or name.lower().endswith(AUDIO_EXTENSIONS)


def _apply_key(path: Path, columns: _Columns, enrolled: NameIndex, tested: NameIndex) -> _Columns:
    """Take the labels from a key: a trial list, in any order, whose trials include these."""
    size = len(tested.ids)
    key = _without_repeats(path, _read_columns(path, enrolled, tested))
    if not len(key.codes):
        raise ValueError(
            f"the key {path} has no labels: expected `model test target-correct|...` on each line"
        )
    size = max(size, len(tested.ids))
    wanted, there = columns.enrol * size + columns.test, key.enrol * size + key.test
    order = np.argsort(there)
    place = np.minimum(np.searchsorted(there, wanted, sorter=order), len(there) - 1)
    rows = order[place]
    missing = np.flatnonzero(there[rows] != wanted)
    if missing.size:
        lines = [f"trial of line {columns.numbers[row]}" for row in missing[:_SHOWN]]
        raise ValueError(f"{missing.size} trials are not in the key {path}: {', '.join(lines)}")
    return columns._replace(codes=key.codes[rows], labels=key.labels)


def read_trials(
    path: str | Path,
    known_ids: Collection[str] | None = None,
    enrolment: str | Path | None = None,
    key: str | Path | None = None,
) -> Trials:
    """Read a trial list, plain or gzipped, in any format of `table`, detected from its content.

    A trial given twice counts once, with a warning that names the lines.

    Parameters
    ----------
    path : str or Path
        The list. Extensions of audio files are removed from the names; either path separator is read.
    known_ids : collection of str, optional
        The utterances that exist. A line that names another one is an error.
    enrolment : str or Path, optional
        An enrolment file, `model-id phrase-id utterance utterance ...`: the enrolment column of the list then
        names models, each of several utterances. Models without trials are left out.
    key : str or Path, optional
        A file with the labels, if the list itself has none: a list of the same trials, in any order.

    Returns
    -------
    Trials
        The trials in the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For malformed lines, unknown labels, a pair with both labels, utterances not in `known_ids` and models not in
        `enrolment` (each with file and line number), for a list of unknown format or without trials or labels, and for
        a file that is truncated or not text.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "trials.txt").write_text("1 a/s/1.wav a/s/2.wav\\n0 a/s/1.wav b/s/1.wav\\n")
    >>> trials = read_trials(folder / "trials.txt")
    >>> trials.ids, trials.enrol.tolist(), trials.test.tolist(), trials.target.tolist()
    (['a/s/1', 'a/s/2', 'b/s/1'], [0, 0], [1, 2], [True, False])
    """
    path = Path(path)
    known = None if known_ids is None else frozenset(known_ids)
    tested = NameIndex()
    enrolled = tested if enrolment is None else NameIndex(to_id=str)
    columns = _read_columns(path, enrolled, tested)
    n_enrolled, n_tested = len(enrolled.ids), len(tested.ids)
    if key is not None:
        columns = _apply_key(Path(key), columns, enrolled, tested)
    elif not len(columns.codes):
        raise ValueError(f"{path} has no labels: give the file that has them as key")
    ids, models = list(tested.ids)[:n_tested], None
    if known is not None:
        side = "both" if enrolment is None else "test"
        _refuse_unknown(path, columns, side, ids, known, "utterance")
    columns = _without_repeats(path, columns)
    test = columns.test
    if enrolment is not None:
        names = list(enrolled.ids)[:n_enrolled]
        there = _read_enrolment(Path(enrolment))
        _refuse_unknown(path, columns, "enrol", names, there, f"model (in {enrolment})")
        index: dict[str, int] = {}
        models, strange = [], []
        for name in names:
            number, phrase, utterances = there[name]
            models.append(
                EnrolmentModel(name, tuple(index.setdefault(u, len(index)) for u in utterances), phrase)
            )
            if known is not None:
                strange += [f"{enrolment}:{number}: no utterance {u}" for u in utterances if u not in known]
        if strange:
            raise ValueError(
                f"{len(strange)} utterances of an enrolment file do not exist:{first_few(strange)}"
            )
        test = np.array([index.setdefault(name, len(index)) for name in ids], np.int64)[test]
        ids = list(index)
    target = np.array([target for target, _ in columns.labels])[columns.codes]
    kinds = [kind or ("target" if target else "nontarget") for target, kind in columns.labels]
    if not any(kind for _, kind in columns.labels):
        return Trials(ids, columns.enrol, test, target, models)
    types = tuple(dict.fromkeys(kinds))
    trial_type = np.array([types.index(kind) for kind in kinds], np.uint8)[columns.codes]
    return Trials(ids, columns.enrol, test, target, models, trial_type, types)
