"""Writing trial lists and enrolment files, in the formats of `table`, line by line."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.trials.table import FORMATS
from speechbrain_bccmt.trials.trial_list import Trials


def trial_lines(trials: Trials, format: str = "voxceleb") -> Iterator[str]:
    """Yield the lines of a trial list in one of `FORMATS`, names without extension.

    Raises
    ------
    ValueError
        If there is no such format.
    """
    if format not in FORMATS:
        raise ValueError(f"no format of trial lists {format}: expected one of {', '.join(FORMATS)}")
    enrolments, ids = trials.enrolment_ids, trials.ids
    plain = {"voxceleb": ("0", "1"), "csv": ("0", "1")}.get(format, ("nontarget", "target"))
    labels = (plain[target] for target in trials.target.tolist())
    if format in ("sdsv", "csv") and trials.trial_type is not None:
        labels = map(trials.trial_types.__getitem__, trials.trial_type.tolist())
    rows = zip(trials.enrol.tolist(), trials.test.tolist(), labels, strict=True)
    if format == "voxceleb":
        yield from (f"{label} {enrolments[enrol]} {ids[test]}\n" for enrol, test, label in rows)
        return
    if format == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in chain(
            [("enrol", "test", "label")], ((enrolments[e], ids[t], label) for e, t, label in rows)
        ):
            writer.writerow(row)
            yield text.getvalue()
            text.seek(text.truncate(0))
        return
    if format == "sdsv":
        yield "model-id evaluation-file-id trial-type\n"
    yield from (f"{enrolments[enrol]} {ids[test]} {label}\n" for enrol, test, label in rows)


def format_trials(trials: Trials, format: str = "voxceleb") -> str:
    """Return the trial list as text, by default in VoxCeleb's format, names without extension."""
    return "".join(trial_lines(trials, format))


def write_trials(path: str | Path, trials: Trials, format: str = "voxceleb") -> None:
    """Write a trial list, atomically.

    Parameters
    ----------
    path : str or Path
        The file, replaced if it exists; gzipped if it ends in ".gz".
    trials : Trials
        What to write. Names are written without extension. Trial types are kept by `sdsv` and `csv`.
    format : str
        `voxceleb`, `kaldi`, `sdsv` or `csv`.

    Raises
    ------
    ValueError
        If there are no trials, or no such format.
    """
    if not len(trials):
        raise ValueError(f"no trials to write to {path}")
    _write_lines(Path(path), trial_lines(trials, format))


def format_models(trials: Trials) -> str:
    """Return the models of a trial list as the text of SdSV's enrolment file, with phrases if all have one.

    Raises
    ------
    ValueError
        If the list has no models.

    Examples
    --------
    >>> import numpy as np
    >>> from speechbrain_bccmt.trials.trial_list import EnrolmentModel
    >>> model, none = EnrolmentModel("anna_hello", (0, 1), phrase="hello"), np.array([], int)
    >>> print(format_models(Trials(["a/1", "a/2"], none, none, none > 0, [model])))
    model-id phrase-id enroll-file-id1 enroll-file-id2
    anna_hello hello a/1 a/2
    <BLANKLINE>
    """
    if not trials.models:
        raise ValueError("the trial list has no models to write: each of its enrolments is one utterance")
    phrases = all(model.phrase for model in trials.models)
    longest = max(len(model.utterances) for model in trials.models)
    header = ["model-id", *["phrase-id"] * phrases, *(f"enroll-file-id{n + 1}" for n in range(longest))]
    rows = (
        [model.id, *[model.phrase] * phrases, *(trials.ids[index] for index in model.utterances)]
        for model in trials.models
    )
    return "".join(" ".join(row) + "\n" for row in chain([header], rows))


def write_models(path: str | Path, trials: Trials) -> None:
    """Write the models of a trial list as SdSV's enrolment file, atomically.

    Parameters
    ----------
    path : str or Path
        The file, replaced if it exists; gzipped if it ends in ".gz".
    trials : Trials
        The list whose models are written, with phrases if all of them have one.

    Raises
    ------
    ValueError
        If the list has no models.
    """
    _write_lines(Path(path), iter([format_models(trials)]))


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with temporary_sibling(path) as temporary:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(temporary, "wt", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        temporary.replace(path)
