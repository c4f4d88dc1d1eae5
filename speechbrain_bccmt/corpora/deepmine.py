"""DeepMine Part 1, as released for the text-dependent task of the SdSV challenge 2020 (Zeinali et al.).

Five Persian and five English phrases. The corpus is licensed, and nobody who wrote this had access to it; the layout is
that of the challenge's evaluation plan and of public code that prepares it (the `sdsv20t1` recipe of hyperion)::

    docs/train_labels.txt      train-file-id speaker-id phrase-id
    docs/model_enrollment.txt  model-id phrase-id enroll-file-id1 enroll-file-id2 enroll-file-id3
    docs/trials.txt            model-id evaluation-file-id
    wav/train/<train-file-id>.wav, wav/enrollment/<enroll-file-id>.wav, wav/evaluation/<evaluation-file-id>.wav

A first line that begins with the name of its first column is a header. The release names neither the speakers nor the
types of the evaluation trials: a key with types is passed to the verification as a key.
"""

from __future__ import annotations

import os
from pathlib import Path

from speechbrain_bccmt.corpora.layout import AudioFile
from speechbrain_bccmt.corpora.phrase_preparation import prepare_phrases
from speechbrain_bccmt.corpora.phrases import PhraseUtterance, absolute, summed_up
from speechbrain_bccmt.corpora.preparation import Preparation
from speechbrain_bccmt.trials.read import read_models
from speechbrain_bccmt.trials.trial_list import utterance_id

_PERSIAN = {"01", "02", "03", "04", "05"}
_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus")
_TRAINING = ("docs/train_labels.txt", "wav/train")
_TEST = ("docs/model_enrollment.txt", "docs/trials.txt", "wav/enrollment", "wav/evaluation")


def _list_audio(folder: Path) -> dict[str, AudioFile]:
    """List the audio files of a folder by their name without extension."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(_EXTENSIONS) and not entry.name.startswith("."):
                status = entry.stat()
                found[os.path.splitext(entry.name)[0]] = AudioFile(
                    entry.path, status.st_size, status.st_mtime_ns
                )
    if not found:
        raise FileNotFoundError(f"no audio ({', '.join(_EXTENSIONS)}) in {folder}")
    return found


def _language(phrase: str) -> str:
    """Return a phrase's language; trials of the challenge stay within one."""
    return "persian" if phrase in _PERSIAN else "english"


def _read_train_labels(path: Path, audio: dict[str, AudioFile]) -> dict[str, PhraseUtterance]:
    found, complaints = {}, []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if not fields or fields[0] == "train-file-id":
                continue
            if len(fields) != 3:
                complaints.append(
                    f"{path}:{number}: expected `train-file-id speaker-id phrase-id`: {line.strip():.80}"
                )
                continue
            name, speaker, phrase = utterance_id(fields[0]), *fields[1:]
            if name in found:
                complaints.append(f"{path}:{number}: {name} again")
            elif name not in audio:
                complaints.append(f"{path}:{number}: no audio of {name} in wav/train")
            else:
                found[name] = PhraseUtterance(audio[name], speaker, phrase, phrase_group=_language(phrase))
    if complaints:
        raise ValueError(f"{len(complaints)} lines of the training labels are wrong: {summed_up(complaints)}")
    if not found:
        raise ValueError(f"{path} names no utterances: expected lines `train-file-id speaker-id phrase-id`")
    return found


def find_deepmine(
    data_folder: str | Path, training: bool = True, testing: bool = True
) -> tuple[dict[str, PhraseUtterance], list[str]]:
    """List the utterances of DeepMine Part 1.

    Parameters
    ----------
    data_folder : str or Path
        Holds `docs/` and `wav/`, see the module docstring.
    training : bool
        Whether to list the training part.
    testing : bool
        Whether to list the enrolment and evaluation utterances.

    Returns
    -------
    utterances : dict of str to PhraseUtterance
        By file id, sorted. Groups of phrases are languages. The speakers of the test are unknown.
    enrolled : list of str
        Utterances that the models name.

    Raises
    ------
    FileNotFoundError
        If the folder, or a file or folder in it, is missing; all of them are named.
    ValueError
        If labels are malformed, or they or the models name audio that is not there.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "docs").mkdir(); (folder / "wav" / "train").mkdir(parents=True)
    >>> (folder / "wav" / "train" / "trn_000001.wav").touch()
    >>> _ = (folder / "docs" / "train_labels.txt").write_text("trn_000001 spk_000001 06\\n")
    >>> find_deepmine(folder, testing=False)[0]["trn_000001"].speaker
    'spk_000001'
    """
    folder = Path(absolute(data_folder))
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder {folder}")
    needed = (*_TRAINING * training, *_TEST * testing)
    if missing := [name for name in needed if not (folder / name).exists()]:
        raise FileNotFoundError(
            f"{folder} is not laid out as DeepMine Part 1: it has no {', no '.join(missing)}"
        )
    found: dict[str, PhraseUtterance] = {}
    enrolled: list[str] = []
    if training:
        found |= _read_train_labels(folder / _TRAINING[0], _list_audio(folder / _TRAINING[1]))
    if testing:
        audio = _list_audio(folder / "wav/enrollment")
        path = folder / _TEST[0]
        absent = []
        for number, _, _, names in read_models(path):
            enrolled += [utterance_id(name) for name in names]
            absent += [
                f"{path}:{number}: no audio of {name}" for name in names if utterance_id(name) not in audio
            ]
        if absent or not enrolled:
            raise ValueError(
                f"{len(absent)} enrolment utterances are not in {folder / 'wav/enrollment'}: {summed_up(absent)}"
                if absent
                else f"{path} names no models"
            )
        audio = _list_audio(folder / "wav/evaluation") | audio
        if clash := sorted(found.keys() & audio):
            raise ValueError(
                f"{len(clash)} files for the test are named as training files, such as {clash[0]}"
            )
        found |= {name: PhraseUtterance(file, "", "", "test") for name, file in audio.items()}
    return dict(sorted(found.items())), list(dict.fromkeys(enrolled))


def prepare_deepmine(
    data_folder: str | Path, save_folder: str | Path, testing: bool = True, **options
) -> Preparation:
    """Prepare DeepMine Part 1: hold dev speakers out of the training part, and list the test utterances.

    Parameters
    ----------
    data_folder : str or Path
        See `find_deepmine`.
    save_folder : str or Path
        Where the files are written.
    testing : bool
        False if the enrolment and evaluation data are not available: `test.csv` is then empty.
    **options
        See `prepare_phrases`: `class_of`, `dev_speakers`, `dev_trials`, `enrolment`, `training`, `seed`,
        `min_duration`, `max_unreadable`, `workers` and `progress`.

    Returns
    -------
    Preparation
        Paths and counts; the test lists are those of the release.

    Raises
    ------
    FileNotFoundError, ValueError
        As `find_deepmine` and `prepare_phrases`.
    """
    docs = Path(absolute(data_folder)) / "docs"
    training = options.get("training", True)
    utterances, enrolled = find_deepmine(data_folder, training, testing)
    lists = (docs / "model_enrollment.txt", docs / "trials.txt") if testing else None
    # The trial list, 8.3 million lines, is not read here.
    depends_on = [docs / "train_labels.txt"] * training + [docs / "model_enrollment.txt"] * testing
    return prepare_phrases(utterances, save_folder, lists, depends_on, enrolled, **options)
