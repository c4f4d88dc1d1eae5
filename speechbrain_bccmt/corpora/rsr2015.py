"""RSR2015 (Larcher, Lee, Ma and Li, Speech Communication 60, 2014), Part II: thirty short commands per speaker.

The corpus is licensed, and nobody who wrote this had access to it. The source of each statement:

- *From SIDEKIT's tutorial and configuration for Part I, whose authors made the corpus*: the folders `sph/male`,
  `sph/female` and `key/part1/{trn,ndx}`; names `m001/m001_01_001.sph` of speaker, session and sentence; Part I is
  sentences 001 to 030; background speakers m001 to m050; the lines of `.trn` (model and three enrolment files)
  and of `.ndx` (model, file, and Y or N for target-correct and, two columns on, impostor-correct).
- *Follows from its 10,244 target-correct and 573,664 = 56 x 10,244 impostor-correct trials*: 57 male evaluation
  speakers, m101 to m157, whose 30 sentences are tested in six of nine sessions, so that three enrol.
- *Customary, not verified*: Part II is sentences 031 to 060; the other speakers' ranges below (their numbers
  add up to the 157 men and 143 women there are); sessions 1, 4 and 7 enrol; `key/part2` is laid out as
  `key/part1`, and its columns between and after the two named are target-wrong and impostor-wrong.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from speechbrain_bccmt.corpora.layout import AudioFile
from speechbrain_bccmt.corpora.phrase_preparation import prepare_phrases
from speechbrain_bccmt.corpora.phrase_trials import make_phrase_trials
from speechbrain_bccmt.corpora.phrases import PhraseUtterance, absolute, summed_up
from speechbrain_bccmt.corpora.preparation import Preparation
from speechbrain_bccmt.trials.table import TRIAL_TYPES
from speechbrain_bccmt.trials.write import format_models, format_trials

# Last speaker of each set, by sex.
_SETS = {
    "male": {"background": 50, "development": 100, "evaluation": 157},
    "female": {"background": 47, "development": 94, "evaluation": 143},
}
_SENTENCES = {1: range(1, 31), 2: range(31, 61)}
ENROLMENT_SESSIONS = (1, 4, 7)
_NAME = re.compile(r"([mf])(\d{3})_(\d{2})_(\d{3})", re.IGNORECASE)
# In this order if a file is there twice: the sphere files of the release may be compressed with shorten, which
# libsndfile cannot read.
_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".sph")


def speaker_set(speaker: str) -> str:
    """Return the set of a speaker, `"background"`, `"development"` or `"evaluation"`.

    Raises
    ------
    ValueError
        For a speaker outside the corpus.

    Examples
    --------
    >>> speaker_set("m050"), speaker_set("f048"), speaker_set("m157")
    ('background', 'development', 'evaluation')
    """
    sets = _SETS["male" if speaker.startswith("m") else "female"]
    number = int(speaker[1:])
    for name, last in sets.items():
        if 0 < number <= last:
            return name
    raise ValueError(f"speaker {speaker} is not of RSR2015, whose last is {speaker[0]}{max(sets.values())}")


def _audio_files(data_folder: str | Path) -> Iterator[tuple[str, AudioFile]]:
    """Yield each audio file below `male` and `female`, as path without extension and file."""
    folder = absolute(data_folder)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no data folder {folder}")
    roots = [os.path.join(folder, name) for name in ("sph", "wav", "")]
    root = next((r for r in roots if any(os.path.isdir(os.path.join(r, sex)) for sex in _SETS)), None)
    if root is None:
        raise FileNotFoundError(
            f"{folder} is not laid out as RSR2015: looked for sph/male, sph/female, wav/male, wav/female, male "
            "and female in it"
        )
    pending = [os.path.join(root, sex) for sex in _SETS if os.path.isdir(os.path.join(root, sex))]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending.append(entry.path)
                elif entry.name.lower().endswith(_EXTENSIONS) and not entry.name.startswith("."):
                    status = entry.stat()
                    yield (
                        os.path.splitext(entry.path)[0],
                        AudioFile(entry.path, status.st_size, status.st_mtime_ns),
                    )


def find_rsr2015(
    data_folder: str | Path, part: int = 2, train_on: Sequence[str] = ("background",)
) -> dict[str, PhraseUtterance]:
    """List the utterances of one part of RSR2015.

    Parameters
    ----------
    data_folder : str or Path
        Holds `sph/male/m001/m001_01_031.sph` and so on; also `wav/` in place of `sph/`, or neither.
    part : int
        1 (sentences) or 2 (commands).
    train_on : sequence of str
        Sets to train on: `"background"`, and optionally `"development"`.

    Returns
    -------
    dict of str to PhraseUtterance
        By id, such as `m001/m001_01_031`, sorted. The phrase is the number of the sentence. The evaluation set is for
        testing; a development set that is not trained on is for the dev set. Sessions 1, 4 and 7 enrol. Groups are
        sexes.

    Raises
    ------
    FileNotFoundError
        If the folder is missing, has another layout, or holds nothing of this part.
    ValueError
        If file names are not those of the corpus, or options are unknown.

    Examples
    --------
    >>> folder = getfixture("tmp_path") / "sph" / "male" / "m001"
    >>> folder.mkdir(parents=True)
    >>> (folder / "m001_01_031.sph").touch()
    >>> list(find_rsr2015(folder.parents[2]))
    ['m001/m001_01_031']
    """
    if part not in _SENTENCES:
        raise ValueError(
            f"part={part}: of RSR2015's parts, {' and '.join(map(str, _SENTENCES))} have phrases"
        )
    if not train_on or set(train_on) - {"background", "development"}:
        raise ValueError(f"train_on={list(train_on)}: expected background, or background and development")
    found: dict[str, PhraseUtterance] = {}
    strange, seen = [], Counter()
    rank = {extension: number for number, extension in enumerate(_EXTENSIONS)}
    for path, file in _audio_files(data_folder):
        name = os.path.basename(path).lower()
        match = _NAME.fullmatch(name)
        if not match:
            strange.append(file.path)
            continue
        seen[match[4]] += 1
        if int(match[4]) not in _SENTENCES[part]:
            continue
        speaker = match[1] + match[2]
        utterance = f"{speaker}/{name}"
        ending = os.path.splitext(file.path)[1].lower()
        if utterance in found:
            other = os.path.splitext(found[utterance].file.path)[1].lower()
            if other == ending:
                raise ValueError(f"{file.path} and {found[utterance].file.path} have one name: leave one out")
            if rank[other] < rank[ending]:
                continue
        own = speaker_set(speaker)
        found[utterance] = PhraseUtterance(
            file,
            speaker,
            match[4],
            "test" if own == "evaluation" else "train" if own in train_on else "dev",
            enrol=int(match[3]) in ENROLMENT_SESSIONS,
            speaker_group=match[1],
        )
    if strange:
        raise ValueError(
            f"{len(strange)} files are not named as RSR2015's, speaker_session_sentence as in m001_01_031: "
            f"{summed_up(sorted(strange))}"
        )
    if not found:
        there = f"sentences {min(seen)} to {max(seen)} are there" if seen else "there is no audio at all"
        sentences = _SENTENCES[part]
        raise FileNotFoundError(
            f"no audio of Part {part} (sentences {sentences[0]:03d} to {sentences[-1]:03d}) below male and female "
            f"in {absolute(data_folder)}: {there}"
        )
    return dict(sorted(found.items()))


def protocol_files(data_folder: str | Path, part: int = 2) -> list[tuple[Path, Path]]:
    """Find the evaluation protocol that comes with the corpus: for each sex, enrolment and trial file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If there are several for a sex, or one of the two files is missing.
    """
    key = Path(absolute(data_folder)) / "key" / f"part{part}"
    pairs = []
    for sex in "mf":
        files = [sorted((key / kind).glob(f"*eval_{sex}.{kind}")) for kind in ("trn", "ndx")]
        if [len(found) for found in files] == [1, 1]:
            pairs.append((files[0][0], files[1][0]))
        elif any(files):
            names = ", ".join(path.name for found in files for path in found)
            raise ValueError(
                f"{key} should hold one *eval_{sex}.trn and one *eval_{sex}.ndx, but has {names}"
            )
    if not pairs:
        raise FileNotFoundError(
            f"no evaluation protocol: looked for trn/*eval_m.trn, ndx/*eval_m.ndx and the same with f in {key}. "
            "protocol=drawn makes one that is not comparable with published results"
        )
    return pairs


def _fields(path: Path, least: int) -> Iterator[list[str]]:
    """Yield the fields of each non-blank line, separated by commas or white space."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            fields = line.replace(",", " ").split()
            if fields and len(fields) < least:
                raise ValueError(f"{path}:{number}: expected {least} columns: {line.strip():.120}")
            if fields:
                yield fields


def _utterance(name: str, known: dict[str, PhraseUtterance], path: Path) -> str:
    """Convert a file name in a protocol (`male/m101/m101_01_031.sph`) to an utterance id."""
    stem = os.path.splitext(name.replace("\\", "/").rpartition("/")[2])[0].lower()
    utterance = f"{stem[:4]}/{stem}"
    if utterance not in known:
        raise ValueError(f"{path} names {name}, which is not there or cannot be read")
    return utterance


def convert_protocol(
    files: Sequence[tuple[Path, Path]],
    known: dict[str, PhraseUtterance],
    trial_types: Sequence[str] = tuple(TRIAL_TYPES),
) -> tuple[str, str]:
    """Convert the corpus's protocol to the lists that `read_trials` reads.

    Parameters
    ----------
    files : sequence of tuple
        See `protocol_files`.
    known : dict
        The utterances that exist, by id.
    trial_types : sequence of str
        The types to keep.

    Returns
    -------
    models, trials : str
        Texts of the enrolment file and of the trial list.

    Raises
    ------
    ValueError
        For malformed lines, and for missing utterances.
    """
    flags = [(column, name) for column, name in enumerate(TRIAL_TYPES, 2) if name in trial_types]
    models = ["model-id phrase-id enroll-file-id1 enroll-file-id2 enroll-file-id3"]
    trials = ["model-id evaluation-file-id trial-type"]
    ids: dict[str, str] = {}
    for enrolment_file, trial_file in files:
        for model, *names in _fields(enrolment_file, 2):
            enrolled = [_utterance(name, known, enrolment_file) for name in names]
            models.append(" ".join([model, known[enrolled[0]].phrase, *enrolled]))
        for fields in _fields(trial_file, 6):
            name = fields[1]
            if name not in ids:
                ids[name] = _utterance(name, known, trial_file)
            trials += [f"{fields[0]} {ids[name]} {kind}" for column, kind in flags if fields[column] == "Y"]
    return "\n".join(models) + "\n", "\n".join(trials) + "\n"


def prepare_rsr2015(
    data_folder: str | Path,
    save_folder: str | Path,
    part: int = 2,
    train_on: Sequence[str] = ("background",),
    protocol: str = "official",
    test_trials: int = 40000,
    trial_types: Sequence[str] = tuple(TRIAL_TYPES),
    **options,
) -> Preparation:
    """Prepare one part of RSR2015: train on the background, validate on the development, test on the evaluation set.

    Parameters
    ----------
    data_folder, part, train_on
        See `find_rsr2015`.
    save_folder : str or Path
        Where the files are written, the test lists among them.
    protocol : str
        `"official"`: the trials of `key/part2`; `"drawn"`: random ones of the four types, if the keys are not
        available; not comparable with published results.
    test_trials : int
        Number of trials to draw.
    trial_types : sequence of str
        Types of test trials. Most of the official ones, by far, are impostor-wrong trials.
    **options
        See `prepare_phrases`.

    Returns
    -------
    Preparation
        Paths and counts.

    Raises
    ------
    FileNotFoundError
        If the folder is not RSR2015's, or has no protocol.
    ValueError
        As `find_rsr2015`, `convert_protocol` and `prepare_phrases`.
    """
    if protocol not in ("official", "drawn"):
        raise ValueError(f"protocol is '{protocol}', expected official or drawn")
    utterances = find_rsr2015(data_folder, part, train_on)
    files = protocol_files(data_folder, part) if protocol == "official" else []
    seed = options.get("seed", 1986)

    def make_lists(readable: dict[str, PhraseUtterance]) -> tuple[str, str]:
        if files:
            return convert_protocol(files, readable, trial_types)
        trials = make_phrase_trials(readable, test_trials, seed, types=trial_types)
        return format_models(trials), format_trials(trials, "sdsv")

    described = [part, list(train_on), protocol, test_trials, list(trial_types)]
    depends_on = [path for pair in files for path in pair]
    return prepare_phrases(utterances, save_folder, make_lists, depends_on, options=described, **options)
