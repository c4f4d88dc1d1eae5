"""Preparation of corpora: the CSV files and trial lists that training and verification read.

`prepare_corpus` serves every corpus. `voxceleb`, `phrase_csv`, `rsr2015` and `deepmine` describe theirs: who says what
in which file, and how dev trials are drawn. Only headers are read, unless `vad` is set. The files written belong
together: a run that is killed, or finds the disk full, leaves the earlier set or none that counts as complete. If the
inputs are unchanged, nothing is rewritten.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from speechbrain_bccmt.corpora.phrases import PhraseUtterance, absolute, class_labels
from speechbrain_bccmt.corpora.records import (
    digest_inputs,
    earlier_result,
    format_utterances,
    read_utterances,
    report_unreadable,
)
from speechbrain_bccmt.corpora.speech import find_stretches
from speechbrain_bccmt.files import write_together

logger = logging.getLogger(__name__)

_FORMAT = 4  # of the files written; raised when they change, so that older ones are rebuilt
MODEL_LISTS = "{}_model_enrollment.txt", "{}_trials.txt"


@dataclass(frozen=True)
class Preparation:
    """What a preparation wrote.

    Attributes
    ----------
    train_csv, dev_csv : str or None
        Utterances to train on, and of held-out speakers; None if only test data was prepared.
    dev_models, dev_trials : str or None
        Trial list over `dev_csv`, and its models if trials are against models; None without held-out speakers.
    test_csv : str
        Utterances to test with.
    test_models, test_trials : str or None
        Enrolment file and trial list of models to test with, wherever they are; None if the corpus has none.
    unreadable : str
        List of the files left out, each with the reason.
    n_classes, n_speakers, n_phrases, n_utterances : int
        In `train_csv`.
    n_hours : float
        Duration of `train_csv` in hours.
    n_dev_speakers, n_dev_utterances, n_dev_trials : int
        Of the held-out part.
    n_test_speakers, n_test_utterances : int
        In `test_csv`.
    n_unreadable, n_short : int
        Files left out as unreadable, and as shorter than `min_duration` or without speech.
    rebuilt : bool
        False if the files of an earlier run were still valid.
    """

    train_csv: str | None
    dev_csv: str | None
    dev_models: str | None
    dev_trials: str | None
    test_csv: str
    test_models: str | None
    test_trials: str | None
    unreadable: str
    n_classes: int
    n_speakers: int
    n_phrases: int
    n_utterances: int
    n_hours: float
    n_dev_speakers: int
    n_dev_utterances: int
    n_dev_trials: int
    n_test_speakers: int
    n_test_utterances: int
    n_unreadable: int
    n_short: int
    rebuilt: bool


@dataclass(frozen=True)
class DevTrials:
    """Dev trials drawn by a corpus.

    Attributes
    ----------
    ids : list of str
        Utterances of `dev.csv`.
    n_trials : int
        Number of trials.
    trials : str
        Text of the trial list.
    models : str or None
        Text of the enrolment file, if trials are against models.
    """

    ids: list[str]
    n_trials: int
    trials: str
    models: str | None = None


def prepare_corpus(
    utterances: Mapping[str, PhraseUtterance],
    save_folder: str | Path,
    find_eligible: Callable[[dict[str, PhraseUtterance]], Collection[str]],
    draw_dev: Callable[[dict[str, PhraseUtterance]], DevTrials],
    test_lists: tuple[str | Path, str | Path]
    | Callable[[dict[str, PhraseUtterance]], tuple[str, str]]
    | None = None,
    depends_on: Sequence[str | Path] = (),
    tested: Collection[str] = (),
    failed: Mapping[str, str] | None = None,
    class_of: str = "speaker",
    dev_speakers: int = 10,
    training: bool = True,
    seed: int = 1986,
    min_duration: float = 0.0,
    vad: bool = False,
    max_unreadable: float = 0.01,
    workers: int | None = None,
    progress: bool = True,
    options: object = None,
) -> Preparation:
    """Write `train.csv`, `dev.csv`, the dev trial list and `test.csv` of a corpus.

    Parameters
    ----------
    utterances : mapping of str to PhraseUtterance
        The corpus by utterance id; part "test" for the utterances of `test.csv`.
    save_folder : str or Path
        Where the files are written, `unreadable.txt` and `preparation.json` beside them.
    find_eligible : callable
        Returns the speakers who can be in a target dev trial, given the non-test utterances; see `choose_held_out`.
    draw_dev : callable
        Returns the dev trials, given the held-out speakers' utterances.
    test_lists : tuple, callable or None
        Paths of enrolment file and trial list to test with; or a function of the readable test utterances that
        returns the two texts, written to `test_model_enrollment.txt` and `test_trials.txt`.
    depends_on : sequence of str or Path
        Files whose contents the outcome depends on, besides the audio.
    tested : collection of str
        Utterances that must be readable.
    failed : mapping of str to str, optional
        Path of each file known to be unreadable to the reason.
    class_of : str
        The training classes, in column `spk_id`: `"speaker"` or `"speaker-phrase"`.
    dev_speakers : int
        Speakers held out of training for the dev set; 0 for none.
    training : bool
        False to prepare only the test data.
    seed : int
        Seed of the choice of speakers.
    min_duration : float
        In seconds; shorter utterances are neither trained on nor in the dev set.
    vad : bool
        Trim each training utterance to its first and last speech, and drop those without any; likewise in the dev set.
        Test utterances stay whole, as trial lists expect.
    max_unreadable : float
        Share of files that may be unreadable; they are skipped and named in `unreadable.txt`.
    workers : int, optional
        Number of files read at a time.
    progress : bool
        Show progress bars.
    options : object
        Anything else the outcome depends on, serialisable as JSON.

    Returns
    -------
    Preparation
        Paths and counts.

    Raises
    ------
    ValueError
        If options are out of range, too many files are unreadable, or no speaker is left for a part.
    OSError
        If the disk is full.
    """
    if dev_speakers == 1 or dev_speakers < 0:
        raise ValueError(f"dev_speakers={dev_speakers}: give two or more, or 0 for no dev set")
    dev_speakers = dev_speakers if training else 0
    utterances = {name: u for name, u in utterances.items() if training or u.part == "test"}
    if not utterances:
        raise ValueError("there are no utterances to prepare" + ("" if training else " for a test"))
    save = Path(absolute(save_folder))
    manifest, report = save / "preparation.json", save / "unreadable.txt"
    described = [
        [class_of, dev_speakers, training, seed, min_duration, vad, max_unreadable, options],
        [utterance[1:] for utterance in utterances.values()],
        [str(path) for path in test_lists] if isinstance(test_lists, tuple) else None,
    ]
    files = {name: utterance.file for name, utterance in utterances.items()}
    current = digest_inputs([_FORMAT, described], depends_on, files)
    if earlier := earlier_result(manifest, current):
        logger.info("The data in %s is up to date.", save)
        return Preparation(**earlier | {"rebuilt": False})

    headers, reasons = read_utterances(files, dict(failed or {}), workers, progress)
    stretches: dict[str, tuple[int, int]] | None = None
    if vad:
        spoken = {name: header for name, header in headers.items() if utterances[name].part != "test"}
        stretches, broken = find_stretches(files, spoken, workers, progress)
        reasons = dict(sorted((reasons | broken).items()))
        headers = {name: header for name, header in headers.items() if files[name].path not in broken}
    unreadable_text = report_unreadable(reasons, files, tested, max_unreadable, report)
    seconds = {name: header.frames / header.sample_rate for name, header in headers.items()}
    test = {name: utterances[name] for name in headers if utterances[name].part == "test"}
    others = {name: utterances[name] for name in headers if utterances[name].part != "test"}
    if stretches is not None:
        limits = {name: stretches.get(name, (0, 0)) for name in others}
        seconds |= {name: (stop - start) / headers[name].sample_rate for name, (start, stop) in limits.items()}
    long = {name: u for name, u in others.items() if seconds[name] and seconds[name] >= min_duration}
    held_out: set[str] = set()
    if dev_speakers:
        speakers = {utterance.speaker for utterance in long.values()} - {""}
        held_out = choose_held_out(find_eligible(long), speakers, dev_speakers, seed)
    train = {name: u for name, u in long.items() if u.part == "train" and u.speaker not in held_out}
    if training and not train:
        raise ValueError(
            f"no training speaker remains: of {len(utterances):,} utterances, {len(test):,} are for the test, "
            f"{len(reasons):,} cannot be read, and {len(others) - len(long):,} "
            + ("hold no speech or less" if vad else "are shorter")
            + f" than {min_duration:g} s"
        )
    labels = class_labels({**others, **test}, class_of)

    dev = DevTrials([], 0, "")
    contents = {report: unreadable_text}
    if held_out:
        dev = draw_dev({name: utterance for name, utterance in long.items() if utterance.speaker in held_out})
        contents[save / "dev_trials.txt"] = dev.trials
        if dev.models is not None:
            contents[save / "dev_model_enrollment.txt"] = dev.models
    for name, part in {"train": train, "dev": dev.ids, "test": test}.items():
        if training or name == "test":
            contents[save / f"{name}.csv"] = format_utterances(
                list(part), files, headers, labels, None if name == "test" else stretches
            )
    lists: list[str | None] = [None, None]
    if callable(test_lists):
        lists = [str(save / name.format("test")) for name in MODEL_LISTS]
        contents |= {Path(path): text for path, text in zip(lists, test_lists(test), strict=True)}
    elif test_lists:
        lists = [absolute(path) for path in test_lists]

    written = {path.name: str(path) for path in contents}
    result = Preparation(
        train_csv=written.get("train.csv"),
        dev_csv=written.get("dev.csv"),
        dev_models=written.get("dev_model_enrollment.txt"),
        dev_trials=written.get("dev_trials.txt"),
        test_csv=written["test.csv"],
        test_models=lists[0],
        test_trials=lists[1],
        unreadable=str(report),
        n_classes=len({labels[name] for name in train} - {""}),
        n_speakers=len({utterance.speaker for utterance in train.values()} - {""}),
        n_phrases=len({utterance.phrase for utterance in train.values()}),
        n_utterances=len(train),
        n_hours=round(sum(seconds[name] for name in train) / 3600, 4),
        n_dev_speakers=len(held_out),
        n_dev_utterances=len(dev.ids),
        n_dev_trials=dev.n_trials,
        n_test_speakers=len({utterance.speaker for utterance in test.values()}),
        n_test_utterances=len(test),
        n_unreadable=len(reasons),
        n_short=len(others) - len(long),
        rebuilt=True,
    )
    sizes = {str(path): len(text.encode()) for path, text in contents.items()}
    text = json.dumps({"fingerprint": current, "sizes": sizes, "result": asdict(result)}, indent=1)
    write_together(contents, manifest, text)
    possible = [
        "train.csv",
        "dev.csv",
        *(name.format(part) for name in MODEL_LISTS for part in ("dev", "test")),
    ]
    for name in possible:
        if save / name not in contents:
            (save / name).unlink(missing_ok=True)  # of an earlier run
    logger.info("Prepared %d utterances to train on and %d to test in %s.", len(train), len(test), save)
    if reasons:
        logger.warning("%d unreadable files are left out; %s names them.", len(reasons), report)
    return result


def choose_held_out(eligible: Collection[str], speakers: Collection[str], count: int, seed: int) -> set[str]:
    """Choose speakers by a hash of their name, so adding data does not reshuffle them all.

    Parameters
    ----------
    eligible : collection of str, or mapping
        Speakers who can be in a target trial; with a group for each, equally many are chosen from each group if
        possible.
    speakers : collection of str
        All speakers; at least one must remain.
    count : int
        How many to hold out.
    seed : int
        Seed of the choice.

    Returns
    -------
    set of str
        The speakers held out of training.

    Raises
    ------
    ValueError
        If there are too few speakers.

    Examples
    --------
    >>> len(choose_held_out(["a", "b", "c"], ["a", "b", "c", "d"], count=2, seed=1))
    2
    >>> sorted(choose_held_out({"a": 0, "b": 0, "c": 0, "d": 1}, "abcd", count=2, seed=1) & {"d"})
    ['d']
    """
    ordered = sorted(eligible, key=lambda speaker: hashlib.blake2b(f"{seed}:{speaker}".encode()).digest())
    if isinstance(eligible, Mapping):
        members: dict[object, list[str]] = {}
        for speaker in ordered:
            members.setdefault(eligible[speaker], []).append(speaker)
        rank = {speaker: place for own in members.values() for place, speaker in enumerate(own)}
        ordered.sort(key=rank.get)
    if count and (len(ordered) < count or len(speakers) <= count):
        raise ValueError(
            f"no training speaker remains: dev_speakers={count} are to be held out of the {len(speakers)} "
            f"speakers that the trial lists leave ({len(ordered)} with utterances enough for a target trial). "
            "Hold out fewer"
        )
    return set(ordered[:count])


def prepare_from_hparams(
    prepare: Callable[..., Preparation], hparams: Mapping[str, object], **options
) -> Preparation:
    """Call a corpus's preparation as the recipes do.

    Parameters
    ----------
    prepare : callable
        `prepare_phrase_csv`, `prepare_rsr2015` or `prepare_deepmine`.
    hparams : mapping
        `data_folder`, `save_folder`, and `corpus_options` with more arguments.
    **options
        Further arguments.

    Returns
    -------
    Preparation
        The result of `prepare`.

    Raises
    ------
    ValueError
        As `prepare`, and for an unknown option.
    """
    extra = dict(hparams["corpus_options"] or {})
    if twice := sorted(extra.keys() & options.keys()):
        raise ValueError(f"corpus_options sets {', '.join(twice)}, which the recipe sets already")
    try:
        return prepare(hparams["data_folder"], hparams["save_folder"], **options, **extra)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"corpus_options: {str(error).replace('()', '')}") from error
