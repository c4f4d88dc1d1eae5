"""Text-dependent corpora: who says which phrase in which file, and the CSV that describes any corpus."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from speechbrain_bccmt.corpora.layout import AudioFile
from speechbrain_bccmt.trials.trial_list import AUDIO_EXTENSIONS, utterance_id

_SHOWN = 5  # lines or names that a message lists before it only counts
# Accepted names of each column; the first one found counts.
_COLUMNS = {
    "utterance": ("utterance", "ID"),
    "speaker": ("speaker", "spk_id"),
    "phrase": ("phrase",),
    "wav": ("wav",),
    "speaker_group": ("sex", "gender"),
    "phrase_group": ("language",),
}
_NEEDED = ("utterance", "speaker", "phrase")


class PhraseUtterance(NamedTuple):
    """One utterance of a phrase.

    Attributes
    ----------
    file : AudioFile
        Where it is.
    speaker, phrase : str
        Who says what.
    part : str
        `"train"`: may be trained on or held out for the dev set; `"dev"`: for the dev set only; `"test"`.
    enrol : bool or None
        True where it may only enrol a speaker in the trials made, False where it may only be tested; None leaves it to
        the order of the ids: the first of a speaker's utterances enrol.
    speaker_group : str
        Impostors are drawn from the same group (sex), as usual in the field.
    phrase_group : str
        Wrong phrases are drawn from the same group (language).
    """

    file: AudioFile
    speaker: str
    phrase: str
    part: str = "train"
    enrol: bool | None = None
    speaker_group: str = ""
    phrase_group: str = ""


def summed_up(complaints: list[str]) -> str:
    """Join complaints for a message: the first few, and how many more there are.

    Examples
    --------
    >>> summed_up(["a", "b"])
    'a; b'
    """
    rest = len(complaints) - _SHOWN
    return "; ".join(complaints[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def audio_file(path: str) -> AudioFile | None:
    """Return a file with what shows a change, or None if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return AudioFile(path, status.st_size, status.st_mtime_ns)


def absolute(folder: str | Path) -> str:
    """Return the absolute path of a folder, `~` expanded."""
    return os.path.abspath(os.path.expanduser(folder))


def read_phrase_csv(csv_file: str | Path, data_folder: str | Path) -> dict[str, PhraseUtterance]:
    """Read a CSV of utterance, speaker and phrase.

    Columns, in any order (others are ignored): `utterance` (or `ID`), `speaker` (or `spk_id`), `phrase`; optionally
    `wav`, the path of the file (otherwise the utterance is the path), `sex` (or `gender`), within which impostors are
    then drawn, and `language`, within which wrong phrases are drawn. Relative paths start from the data folder, or from
    `wav/` inside it.

    Parameters
    ----------
    csv_file : str or Path
        The CSV, with a header; UTF-8.
    data_folder : str or Path
        Where the audio is.

    Returns
    -------
    dict of str to PhraseUtterance
        Sorted by id: the utterance without the extension of audio files. All are of part `"train"`.

    Raises
    ------
    FileNotFoundError
        If the CSV or the data folder is missing.
    ValueError
        If columns, entries or files are missing, or an utterance occurs twice.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "anna" / "hello").mkdir(parents=True)
    >>> _ = (folder / "anna" / "hello" / "1.wav").write_bytes(b"")
    >>> _ = (folder / "meta.csv").write_text("utterance,speaker,phrase\\nanna/hello/1.wav,anna,hello\\n")
    >>> utterances = read_phrase_csv(folder / "meta.csv", folder)
    >>> utterances["anna/hello/1"].speaker, utterances["anna/hello/1"].phrase
    ('anna', 'hello')
    """
    csv_file, root = Path(csv_file), absolute(data_folder)
    if not csv_file.is_file():
        raise FileNotFoundError(f"no CSV of utterances at {csv_file}")
    if not os.path.isdir(root):
        raise FileNotFoundError(f"no data folder {root}")
    read: dict[str, tuple[int, dict[str, str]]] = {}
    complaints = []
    try:
        with open(csv_file, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = _find_columns(csv_file, reader.fieldnames or [])
            for row in reader:
                values = {key: (row[column] or "").strip() for key, column in columns.items()}
                utterance = utterance_id(values["utterance"])
                if empty := [columns[key] for key in _NEEDED if not values[key]]:
                    complaints.append(f"line {reader.line_num} has no {' and no '.join(empty)}")
                elif len(utterance.split()) > 1:
                    complaints.append(
                        f"line {reader.line_num}: trial lists cannot hold the space in '{utterance}'"
                    )
                elif utterance in read:
                    complaints.append(
                        f"line {reader.line_num} repeats {utterance} of line {read[utterance][0]}"
                    )
                else:
                    read[utterance] = reader.line_num, values
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{csv_file} is not a CSV in UTF-8: {error}") from None
    if complaints:
        raise ValueError(f"{csv_file}: {summed_up(complaints)}")
    if not read:
        raise ValueError(f"{csv_file} names no utterances: expected a row each, below the header")
    return _find_files(csv_file, read, root)


def _find_columns(csv_file: Path, header: list[str]) -> dict[str, str]:
    columns = {
        key: next(name for name in names if name in header)
        for key, names in _COLUMNS.items()
        if any(name in header for name in names)
    }
    if missing := [" or ".join(_COLUMNS[key]) for key in _NEEDED if key not in columns]:
        raise ValueError(
            f"{csv_file} has no column {', no column '.join(missing)}; its header is {','.join(header):.200}"
        )
    return columns


def _find_files(
    csv_file: Path, read: dict[str, tuple[int, dict[str, str]]], root: str
) -> dict[str, PhraseUtterance]:
    """Look up the files: in the data folder, or in its `wav/` if the first one is there."""
    _, first = next(iter(read.values()))
    path = first.get("wav") or first["utterance"]
    inside = [
        folder for folder in (root, os.path.join(root, "wav")) if audio_file(os.path.join(folder, path))
    ]
    found, missing = {}, []
    for utterance in sorted(read):
        line, values = read[utterance]
        path = os.path.join(inside[0] if inside else root, values.get("wav") or values["utterance"])
        file = audio_file(path)
        if file is None:
            missing.append(f"line {line}: no file {path}")
            continue
        groups = {key: values.get(key, "") for key in ("speaker_group", "phrase_group")}
        found[utterance] = PhraseUtterance(file, values["speaker"], values["phrase"], **groups)
    if missing:
        hint = ""
        if not first.get("wav") and not path.lower().endswith(AUDIO_EXTENSIONS):
            hint = ". The utterances have no extension: name the files in a column wav"
        raise ValueError(
            f"{len(missing)} of {len(read)} utterances of {csv_file} are not in {root}: {summed_up(missing)}{hint}"
        )
    return found


def class_labels(utterances: dict[str, PhraseUtterance], class_of: str) -> dict[str, str]:
    """Return the training class of each utterance.

    Parameters
    ----------
    utterances : dict of str to PhraseUtterance
        By id.
    class_of : str
        `"speaker"`, or `"speaker-phrase"` for a class of its own for each phrase of each speaker.

    Returns
    -------
    dict of str to str
        Utterance id to class.

    Raises
    ------
    ValueError
        For another `class_of`, or if speakers and phrases have ambiguous names.

    Examples
    --------
    >>> utterances = {"1": PhraseUtterance(AudioFile("1.wav", 0, 0), "anna", "hello")}
    >>> class_labels(utterances, "speaker"), class_labels(utterances, "speaker-phrase")
    ({'1': 'anna'}, {'1': 'anna/hello'})
    """
    labelling: dict[str, Callable[[PhraseUtterance], str]] = {
        "speaker": lambda utterance: utterance.speaker,
        "speaker-phrase": lambda utterance: f"{utterance.speaker}/{utterance.phrase}",
    }
    if class_of not in labelling:
        raise ValueError(f"class_of is '{class_of}', expected {' or '.join(labelling)}")
    labels = {name: labelling[class_of](utterance) for name, utterance in utterances.items()}
    if class_of == "speaker-phrase":
        pairs = {(utterance.speaker, utterance.phrase) for utterance in utterances.values()}
        if len(pairs) != len(set(labels.values())):
            raise ValueError("two pairs of speaker and phrase share a name: leave '/' out of speakers' names")
    return labels
