"""Read the scores of any toolkit, with their labels: from the same file, or joined from a trial list.

Columns are detected by the content of the file, or by the names in a header:

- `enrol test score`: Kaldi, WeSpeaker, 3D-Speaker; labels come from a trial list;
- `enrol test label score`: `scores.txt` of this package and of SpeechBrain;
- `enrol test score label`: WeSpeaker, label `target` or `nontarget`;
- `label score`: no names, so the speakers and conditions of the trials are not known;
- `score`: one score per line, in the order of a trial list (challenges);
- CSV, or separated by white space, with a header of `score` and any of `enrol`, `test` and `label`, in any order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from speechbrain_bccmt.trials.read import NameIndex, first_few, read_trials
from speechbrain_bccmt.trials.table import (
    COLUMN_NAMES,
    Block,
    Layout,
    find_delimiter,
    parse_label,
    plain_name,
    read_table,
    split_line,
)
from speechbrain_bccmt.trials.trial_list import TrialIndex, Trials

logger = logging.getLogger(__name__)

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
_LINES_TO_DETECT_BY = 200


@dataclass(frozen=True)
class ScoredTrials:
    """Scores with their labels.

    Attributes
    ----------
    scores : numpy.ndarray
        (M,) float64, finite.
    target : numpy.ndarray
        (M,) booleans, True for target trials.
    trials : Trials or None
        Which trials these are, in the same order; None if the file names none.
    """

    scores: np.ndarray
    target: np.ndarray
    trials: Trials | None

    def __len__(self) -> int:
        return len(self.scores)


def read_scores(
    path: str | Path, trials: Trials | str | Path | None = None, layout: str | None = None
) -> ScoredTrials:
    r"""Read a score file, plain or gzipped.

    Parameters
    ----------
    path : str or Path
        The score file.
    trials : Trials, str or Path, optional
        The trial list, or its file. It gives the labels, which trials count and their order. Needed if the score file
        has no labels; if it has, both must agree.
    layout : str, optional
        The columns, if they should not be guessed: `enrol`, `test`, `label`, `score` and `-` (not read) separated by
        blanks, for a file without a header.

    Returns
    -------
    ScoredTrials
        In the order of the trial list, or of the score file if there is none. A trial with the same score twice counts
        once; scores of trials that are not in the list are left out. A warning names the lines in both cases.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the columns cannot be detected, for lines with different columns, scores that are not finite numbers, unknown
        labels, a trial with two different scores or labels (each with its line number), trials without a score, no
        labels anywhere, and a file that is empty, truncated or not text.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "scores.txt").write_text("a/1.wav a/2.wav 0.7\na/1.wav b/1.wav 0.2\n")
    >>> _ = (folder / "trials.txt").write_text("0 a/1.wav b/1.wav\n1 a/1.wav a/2.wav\n")
    >>> scored = read_scores(folder / "scores.txt", folder / "trials.txt")
    >>> scored.scores.tolist(), scored.target.tolist()
    ([0.2, 0.7], [False, True])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no score file at {path}")
    if isinstance(trials, (str, Path)):
        trials = read_trials(trials)
    reader = _Reader(path, trials)
    detect = partial(_detect_layout, path, layout)
    for block in read_table(path, detect, reader.malformed, head=_LINES_TO_DETECT_BY):
        reader.add(block)
    return reader.finish()


def _detect_layout(path: Path, wanted: str | None, number: int, head: list[str]) -> Layout:
    """Find the columns of a score file: those wanted, those of its header, or those that fit its first lines."""
    delimiter, names = find_delimiter(head[0]), None
    if wanted is not None:
        names, header = wanted.split(), False
        if "score" not in names or set(names) - {*_NAMES, "-"}:
            raise ValueError(f"the layout `{wanted}` is none: expected names such as `enrol test - score`")
    elif names := _header(split_line(head[0], delimiter)):
        header = True
    else:
        names, header = _guess(path, number, head, delimiter), False
    if ("enrol" in names) != ("test" in names):
        raise ValueError(
            f"{path} names one side of the trials only: expected columns for enrol and test, or none"
        )
    columns = {name: place for place, name in enumerate(names) if name != "-"}
    return Layout(columns, len(names), header, delimiter, " ".join(names))


def _header(fields: list[str]) -> list[str] | None:
    """Name the columns of a header, "-" for unknown ones; None if it is not a header."""
    names = ["-"] * len(fields)
    plain = list(map(plain_name, fields))
    for name, spellings in _NAMES.items():
        if found := [spelling for spelling in spellings if spelling in plain]:
            names[plain.index(found[0])] = name
    return names if "score" in names else None


def _guess(path: Path, number: int, head: list[str], delimiter: str | None) -> list[str]:
    """Choose the layout that fits most of the first lines; the first in a tie."""
    rows = [split_line(line, delimiter) for line in head]
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


class _Reader:
    """Collects blocks as numbers, and interprets them at the end.

    A trial is identified by a key: its number in the trial list, or a number for its pair of names if there is no list,
    or its place in the file if there are no names.
    """

    def __init__(self, path: Path, trials: Trials | None):
        self.path, self.trials = path, trials
        self.index = None if trials is None else TrialIndex(trials)
        self.malformed: list[str] = []
        self.unlisted: list[str] = []  # the first of them
        self.n_unlisted = 0
        self.labels: dict[str, tuple[int, bool, str | None]] = {}
        self.names = NameIndex()
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.named, self.labelled, self.n_lines = True, True, 0

    def add(self, block: Block) -> None:
        texts = block.columns
        numbers = np.asarray(block.numbers, np.int64)
        scores = self._scores(block.numbers, texts["score"])
        self.named, self.labelled = "enrol" in texts and "test" in texts, "label" in texts
        codes = (
            self._codes(block.numbers, texts["label"]) if self.labelled else np.zeros(len(numbers), np.uint8)
        )
        sides = np.full((2, len(numbers)), -1, np.int64)
        if not self.named:
            keys = np.arange(self.n_lines, self.n_lines + len(numbers))
        elif self.index is None:
            names = self.names.indices(chain.from_iterable(zip(texts["enrol"], texts["test"], strict=True)))
            sides = np.stack([names[0::2], names[1::2]])
            keys = np.full(len(numbers), -1)  # not before all names are known
        else:
            keys = self.index.find(texts["enrol"], texts["test"])
            unlisted = np.flatnonzero(keys < 0)
            self.n_unlisted += len(unlisted)
            self.unlisted += [
                f"{self.path}:{block.numbers[i]}: {texts['enrol'][i]} {texts['test'][i]}"
                for i in unlisted[: 10 - len(self.unlisted)]
            ]
        self.n_lines += len(numbers)
        self.parts.append((numbers, scores, codes, keys, *sides))

    def _scores(self, numbers: Sequence[int], texts: Sequence[str]) -> np.ndarray:
        try:
            scores = np.array(list(map(float, texts)))
        except ValueError:
            scores = np.array([_float(text) for text in texts])
        self.malformed += [
            f"{self.path}:{numbers[i]}: the score is {texts[i]}, expected a finite number"
            for i in np.flatnonzero(~np.isfinite(scores))
        ]
        return scores

    def _codes(self, numbers: Sequence[int], texts: Sequence[str]) -> np.ndarray:
        for label in sorted(set(texts).difference(self.labels)):
            try:
                self.labels[label] = len(self.labels), *parse_label(label)
            except KeyError:
                self.labels[label] = len(self.labels), False, None
                self.malformed.append(
                    f"{self.path}:{numbers[texts.index(label)]}: the label is {label}, expected target or nontarget"
                )
        return np.fromiter((self.labels[label][0] for label in texts), np.uint8)

    def finish(self) -> ScoredTrials:
        if self.malformed:
            raise ValueError(
                f"{len(self.malformed)} malformed lines in a score file:{first_few(self.malformed)}"
            )
        if not self.parts:
            raise ValueError(
                f"the score file {self.path} is empty, or holds no scores under its header: expected lines such as "
                "`enrol test score`"
            )
        if self.trials is None and not self.labelled:
            raise ValueError(f"{self.path} has no labels: give the trial list that has them")
        numbers, scores, codes, keys, enrol, test = map(np.concatenate, zip(*self.parts, strict=True))
        if self.trials is None:
            keys = enrol * len(self.names.ids) + test if self.named else keys
        elif not self.named and len(keys) != len(self.trials):
            raise ValueError(
                f"{self.path} has {len(keys)} scores without names, but the trial list has {len(self.trials)} trials: "
                "expected one a trial, in the same order"
            )
        meanings = list(self.labels.values()) or [(0, False, None)]
        target = np.array([is_target for _, is_target, _ in meanings])[codes]
        listed = np.flatnonzero(keys >= 0)
        chosen = listed[self._first_of_equals(numbers[listed], scores[listed], target[listed], keys[listed])]
        if self.trials is not None:
            return self._joined(numbers[chosen], scores[chosen], target[chosen], keys[chosen])
        scores, target, codes = scores[chosen], target[chosen], codes[chosen]
        if not self.named:
            return ScoredTrials(scores, target, None)
        kinds = [kind or ("target" if is_target else "nontarget") for _, is_target, kind in meanings]
        types = tuple(dict.fromkeys(kinds)) if any(kind for *_, kind in meanings) else ()
        trial_type = np.array([types.index(kind) for kind in kinds], np.uint8)[codes] if types else None
        trials = Trials(list(self.names.ids), enrol[chosen], test[chosen], target, None, trial_type, types)
        return ScoredTrials(scores, target, trials)

    def _first_of_equals(self, numbers, scores, target, keys) -> np.ndarray:
        """Keep the first line of each trial, with a warning; reject a trial whose lines differ."""
        _, first, which = np.unique(keys, return_index=True, return_inverse=True)
        if len(first) == len(keys):
            return np.arange(len(keys))
        original = first[which]
        other = (scores != scores[original]) | (target != target[original])
        for wrong, what in (
            (other, "again, with another score or label"),
            (original != np.arange(len(keys)), "again"),
        ):
            rows = np.flatnonzero(wrong)
            lines = [
                f"{self.path}:{numbers[row]}: the trial of line {numbers[original[row]]} {what}"
                for row in rows
            ]
            if lines and wrong is other:
                raise ValueError(f"{len(lines)} trials are scored twice in a score file:{first_few(lines)}")
        logger.warning("%d repeated trials are counted once:%s", len(lines), first_few(lines))
        return np.sort(first)

    def _joined(self, numbers, scores, target, keys) -> ScoredTrials:
        """Put the scores in the order of the trial list."""
        trials = self.trials
        has_score = np.zeros(len(trials), dtype=bool)
        has_score[keys] = True
        if not has_score.all():
            missing = np.flatnonzero(~has_score)
            names = trials.enrolment_ids
            lines = [
                f"trial {i + 1}: {names[trials.enrol[i]]} {trials.ids[trials.test[i]]}" for i in missing[:6]
            ]
            lines += [""] * (len(missing) - len(lines))
            hint = (
                f"\nThe scores that fit no trial:{first_few(self.unlisted, self.n_unlisted)}"
                if self.unlisted
                else ""
            )
            raise ValueError(
                f"{self.path} has no score for {len(missing)} of {len(trials)} trials:"
                f"{first_few(lines, len(missing))}{hint}"
            )
        if self.labelled and (wrong := np.flatnonzero(target != trials.target[keys])).size:
            lines = [f"{self.path}:{numbers[i]}: the trial list has the other label" for i in wrong]
            raise ValueError(f"{len(lines)} labels in a score file differ from the list's:{first_few(lines)}")
        if self.unlisted:
            logger.warning(
                "%d scores of trials that are not in the list are left out:%s",
                self.n_unlisted,
                first_few(self.unlisted, self.n_unlisted),
            )
        ordered = np.empty(len(trials))
        ordered[keys] = scores
        return ScoredTrials(ordered, trials.target, trials)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
