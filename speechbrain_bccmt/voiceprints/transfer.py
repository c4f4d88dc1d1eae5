"""Voiceprints in a plain JSON file: to keep, to read elsewhere, or to move to another store.

The browser page reads and writes the same format, one object:

- `format`: "speechbrain_bccmt voiceprints"; `version`: 1
- `model`: fingerprint; `source`: where the model was, optional
- `speakers`: list of `name` and `utterances`, each with `embedding` (a list of numbers), `seconds`, `audible_seconds`,
  `speech_seconds`, and optionally `bandwidth` (Hz), `file`, `enrolled` (UTC) and `label`

We write one speaker per line, so files larger than memory can be read back.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.voiceprints.names import check_label, check_name
from speechbrain_bccmt.voiceprints.records import EnrolledUtterance

FORMAT, VERSION = "speechbrain_bccmt voiceprints", 1
_END_OF_HEADER = '"speakers": ['


def write_file(path: str | Path, model: tuple[str, str], utterances: Iterable[EnrolledUtterance]) -> int:
    """Write voiceprints to a file, which appears only when complete; only its owner may read it.

    Parameters
    ----------
    path : str or Path
        Compressed if it ends in .gz.
    model : tuple of str
        Fingerprint and source.
    utterances : iterable of EnrolledUtterance
        Grouped by speaker.

    Returns
    -------
    int
        How many speakers were written.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "voices.json"
    >>> write_file(path, ("0123456789abcdef", ""), [EnrolledUtterance("Ada", np.array([0.6, 0.8]), 3.0)])
    1
    >>> header, utterances = read_file(path)
    >>> header["model"], [utterance.embedding.tolist() for utterance in utterances]
    ('0123456789abcdef', [[0.6000000238418579, 0.800000011920929]])
    """
    number, header = 0, {"format": FORMAT, "version": VERSION, "model": model[0], "source": model[1]}
    with temporary_sibling(Path(path)) as temporary:
        with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as raw:
            with gzip.open(raw, "wb", 5) if str(path).endswith(".gz") else raw as file:
                file.write(f"{json.dumps(header, ensure_ascii=False)[:-1]}, {_END_OF_HEADER}".encode())
                for name, own in itertools.groupby(utterances, key=lambda one: one.name):
                    speaker = {"name": name, "utterances": [_as_entry(one) for one in own]}
                    file.write(f"{',' if number else ''}\n{json.dumps(speaker, ensure_ascii=False)}".encode())
                    number += 1
                file.write(b"\n]}\n")
        temporary.replace(path)
    return number


def read_file(path: str | Path) -> tuple[dict, Iterator[EnrolledUtterance]]:
    """Read a file of voiceprints.

    Parameters
    ----------
    path : str or Path
        From `write_file` or the browser page.

    Returns
    -------
    header : dict
        `model`, and `source`, "" if it has none.
    utterances : iterator of EnrolledUtterance
        Read during iteration if the file has one speaker per line.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not such a file, is of a later version or is damaged; also raised during iteration.
    """
    with _open(path) as file:
        try:
            first = file.readline().rstrip()
            in_lines = first.endswith(_END_OF_HEADER)
            content = json.loads(first + "]}" if in_lines else first + file.read())
        except (ValueError, EOFError, gzip.BadGzipFile):
            content = None
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or not isinstance(content.get("model"), str)
    ):
        raise ValueError(
            f"{path}: is no file of voiceprints, as `bccmt voiceprints export` or the page writes it"
        )
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path}: is of version {content.get('version')}, this package knows version {VERSION}: update it"
        )
    speakers = _lines(path) if in_lines else content.get("speakers")
    return {"model": content["model"], "source": str(content.get("source", ""))}, _utterances(path, speakers)


def _open(path: str | Path):
    if str(path).endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    return open(path, encoding="utf-8")


def _lines(path: str | Path) -> Iterator[dict]:
    with _open(path) as file:
        next(file)
        for line in file:
            if line.rstrip() == "]}":
                return
            yield json.loads(line.rstrip().removesuffix(","))
    raise ValueError("it ends too early")


def _utterances(path: str | Path, speakers: Iterable[dict]) -> Iterator[EnrolledUtterance]:
    size = None
    try:
        for speaker in speakers:
            name = check_name(speaker["name"])
            for one in speaker["utterances"]:
                embedding = np.array(one["embedding"], dtype=np.float32)
                size = size or len(embedding)
                if embedding.shape != (size,) or not embedding.any() or not np.isfinite(embedding).all():
                    raise ValueError(f"an embedding of '{name}' is zero, not finite, or of another size")
                label, band = str(one.get("label", "")), one.get("bandwidth")
                yield EnrolledUtterance(
                    name,
                    embedding,
                    float(one["speech_seconds"]),
                    str(one.get("file", "")),
                    str(one.get("enrolled", "")),
                    check_label(label) if label else "",
                    math.nan if band is None else float(band),
                )
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, gzip.BadGzipFile) as error:
        reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError | AttributeError) else error
        raise ValueError(f"{path}: is damaged: {reason}") from error


def _as_entry(one: EnrolledUtterance) -> dict:
    return {
        # Nine digits give the same number back.
        "embedding": [float(f"{value:.9g}") for value in one.embedding.tolist()],
        "seconds": one.seconds,
        "audible_seconds": one.seconds,
        "speech_seconds": one.seconds,
        "bandwidth": None if math.isnan(one.bandwidth) else one.bandwidth,
        "file": one.file,
        "enrolled": one.enrolled,
        "label": one.label,
    }
