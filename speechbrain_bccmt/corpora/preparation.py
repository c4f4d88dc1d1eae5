"""Phrase corpora to the CSV files and trial lists that training and verification read.

`prepare_phrases` serves every text-dependent corpus: what it is given is who says which phrase in which file.
`phrase_csv` is for corpora that a CSV describes; `rsr2015` and `deepmine` know their corpora's layouts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from speechbrain_bccmt.audio.headers import read_utterances, report_unreadable
from speechbrain_bccmt.corpora.held_out import (
    choose_held_out,
    collector_paused,
    digest_inputs,
    earlier_result,
)
from speechbrain_bccmt.corpora.phrase_trials import enrol_phrases, make_phrase_trials
from speechbrain_bccmt.corpora.phrases import PhraseUtterance, absolute, class_labels
from speechbrain_bccmt.corpora.utterance_csv import format_utterances
from speechbrain_bccmt.files import write_together
from speechbrain_bccmt.trials.trial_list import Trials
from speechbrain_bccmt.trials.write import format_models, format_trials

logger = logging.getLogger(__name__)

_FORMAT = 1  # of the files written; raised when they change, so that older ones are rebuilt
_LISTS = "{}_model_enrollment.txt", "{}_trials.txt"


@dataclass(frozen=True)
class PhrasePreparation:
    """What the preparation of a phrase corpus wrote.

    Attributes
    ----------
    train_csv, dev_csv : str or None
        Utterances to train on, and those of held-out speakers that the dev trials name; None where only test
        data was prepared.
    dev_models, dev_trials : str or None
        Models and trials of the four types over `dev_csv`; None where no speakers are held out.
    test_csv : str
        Utterances of the test speakers.
    test_models, test_trials : str or None
        The models and trials to test with, wherever they are; None where the corpus has none.
    unreadable : str
        List of the files left out, with the reason of each.
    n_classes, n_speakers, n_phrases, n_utterances : int
        In `train_csv`.
    n_hours : float
        Duration of `train_csv` in hours.
    n_dev_speakers, n_dev_utterances, n_dev_trials : int
        Of the held-out part.
    n_test_speakers, n_test_utterances : int
        In `test_csv`.
    n_unreadable, n_short : int
        Files left out as unreadable, and as shorter than `min_duration`.
    rebuilt : bool
        False where the files of an earlier run were still valid.
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


def prepare_phrases(
    utterances: Mapping[str, PhraseUtterance],
    save_folder: str | Path,
    test_lists: tuple[str | Path, str | Path]
    | Callable[[dict[str, PhraseUtterance]], tuple[str, str]]
    | None = None,
    depends_on: Sequence[str | Path] = (),
    tested: Collection[str] = (),
    class_of: str = "speaker",
    dev_speakers: int = 10,
    dev_trials: int = 4000,
    enrolment: int = 3,
    training: bool = True,
    seed: int = 1986,
    min_duration: float = 0.0,
    max_unreadable: float = 0.01,
    workers: int | None = None,
    progress: bool = True,
    options: object = None,
) -> PhrasePreparation:
    """Write `train.csv`, `dev.csv`, the dev trial lists and `test.csv` of a phrase corpus.

    Only headers are read, in parallel. The files written belong together: a run that is killed leaves the
    earlier set or none that counts as complete. With unchanged inputs nothing is written again.

    Parameters
    ----------
    utterances : mapping of str to PhraseUtterance
        The corpus by utterance id.
    save_folder : str or Path
        Where the files are written, `unreadable.txt` and `preparation.json` beside them.
    test_lists : tuple, callable or None
        Paths of the enrolment file and the trial list to test with; or a function of the readable test
        utterances that gives the two texts, written to `test_model_enrollment.txt` and `test_trials.txt`.
    depends_on : sequence of str or Path
        Files whose contents the outcome depends on, besides the audio.
    tested : collection of str
        Utterances that must be readable.
    class_of : str
        What training tells apart, in column `spk_id`: `"speaker"` or `"speaker-phrase"`.
    dev_speakers : int
        Speakers for the dev set, of part `"dev"` where there is one, else held out of the training; 0 for
        none.
    dev_trials : int
        Trials over them, shared out evenly among the four types.
    enrolment : int
        Utterances of each model of the dev trials.
    training : bool
        False for the test data alone.
    seed : int
        Of the choice of speakers and trials.
    min_duration : float
        In seconds; shorter utterances are neither trained on nor in the dev set.
    max_unreadable : float
        Share of files that may be unreadable; they are skipped and named in `unreadable.txt`.
    workers : int, optional
        Number of files read at a time.
    progress : bool
        Whether to show progress bars.
    options : object
        Whatever else the outcome depends on; JSON must be able to hold it.

    Returns
    -------
    PhrasePreparation
        Paths and counts.

    Raises
    ------
    ValueError
        Where options are out of range, too many files are unreadable, or no speaker is left for a part.
    OSError
        Where the disk is full.
    """
    if dev_speakers == 1 or dev_speakers < 0:
        raise ValueError(f"dev_speakers={dev_speakers}: give two or more, or 0 for no dev set")
    if not training:
        dev_speakers = 0
    utterances = {
        name: utterance for name, utterance in utterances.items() if training or utterance.part == "test"
    }
    if not utterances:
        raise ValueError("there are no utterances to prepare" + ("" if training else " for a test"))
    save = Path(absolute(save_folder))
    manifest, report = save / "preparation.json", save / "unreadable.txt"
    described = [
        [
            class_of,
            dev_speakers,
            dev_trials,
            enrolment,
            training,
            seed,
            min_duration,
            max_unreadable,
            options,
        ],
        [utterance[1:] for utterance in utterances.values()],
        [str(path) for path in test_lists] if isinstance(test_lists, tuple) else None,
    ]
    files = {name: utterance.file for name, utterance in utterances.items()}
    current = digest_inputs([_FORMAT, described], depends_on, files)
    if earlier := earlier_result(manifest, current):
        logger.info("The data in %s is up to date.", save)
        return PhrasePreparation(**earlier | {"rebuilt": False})

    with collector_paused():
        headers, reasons = read_utterances(files, {}, workers, progress)
    unreadable_text = report_unreadable(reasons, files, tested, max_unreadable, report)
    seconds = {name: header.frames / header.sample_rate for name, header in headers.items()}
    test = {name: utterances[name] for name in headers if utterances[name].part == "test"}
    others = {name: utterances[name] for name in headers if utterances[name].part != "test"}
    long = {name: utterance for name, utterance in others.items() if seconds[name] >= min_duration}
    held_out = _choose_dev(long, dev_speakers, enrolment, seed)
    train = {name: u for name, u in long.items() if u.part == "train" and u.speaker not in held_out}
    if training and not train:
        raise ValueError(
            f"no training speaker remains: of {len(utterances)} utterances, {len(others)} are neither test "
            f"utterances nor unreadable, and {len(long)} of these have {min_duration:g} s or more"
        )
    labels = class_labels({**others, **test}, class_of)

    trials: Trials | None = None
    contents = {report: unreadable_text}
    if held_out:
        candidates = {name: utterance for name, utterance in long.items() if utterance.speaker in held_out}
        trials = make_phrase_trials(candidates, dev_trials, seed, enrolment)
        texts = format_models(trials), format_trials(trials, "sdsv")
        contents |= {save / name.format("dev"): text for name, text in zip(_LISTS, texts, strict=True)}
    dev = sorted(trials.ids) if trials else []
    for name, part in {"train": train, "dev": dev, "test": test}.items():
        if training or name == "test":
            contents[save / f"{name}.csv"] = format_utterances(list(part), files, headers, labels)
    lists: list[str | None] = [None, None]
    if callable(test_lists):
        lists = [str(save / name.format("test")) for name in _LISTS]
        contents |= {Path(path): text for path, text in zip(lists, test_lists(test), strict=True)}
    elif test_lists:
        lists = [absolute(path) for path in test_lists]

    result = PhrasePreparation(
        train_csv=str(save / "train.csv") if training else None,
        dev_csv=str(save / "dev.csv") if training else None,
        dev_models=str(save / _LISTS[0].format("dev")) if trials else None,
        dev_trials=str(save / _LISTS[1].format("dev")) if trials else None,
        test_csv=str(save / "test.csv"),
        test_models=lists[0],
        test_trials=lists[1],
        unreadable=str(report),
        n_classes=len({labels[name] for name in train}),
        n_speakers=len({utterance.speaker for utterance in train.values()}),
        n_phrases=len({utterance.phrase for utterance in train.values()}),
        n_utterances=len(train),
        n_hours=round(sum(seconds[name] for name in train) / 3600, 4),
        n_dev_speakers=len(held_out),
        n_dev_utterances=len(dev),
        n_dev_trials=len(trials) if trials else 0,
        n_test_speakers=len({utterance.speaker for utterance in test.values()}),
        n_test_utterances=len(test),
        n_unreadable=len(reasons),
        n_short=len(others) - len(long),
        rebuilt=True,
    )
    sizes = {str(path): len(text.encode()) for path, text in contents.items()}
    seal = {"fingerprint": current, "sizes": sizes, "result": asdict(result)}
    write_together(contents, manifest, json.dumps(seal, indent=1))
    possible = ["train.csv", "dev.csv", *(name.format(part) for name in _LISTS for part in ("dev", "test"))]
    for name in possible:
        if save / name not in contents:
            (save / name).unlink(missing_ok=True)  # of an earlier run
    logger.info("Prepared %d utterances to train on and %d to test in %s.", len(train), len(test), save)
    if reasons:
        logger.warning("%d unreadable files are left out; %s names them.", len(reasons), report)
    return result


def _choose_dev(utterances: dict[str, PhraseUtterance], count: int, enrolment: int, seed: int) -> set[str]:
    """Choose the dev speakers among those who can be in a target trial: of part dev, where there is one."""
    if not count:
        return set()
    own = {name: utterance for name, utterance in utterances.items() if utterance.part == "dev"}
    models, tests = enrol_phrases(own or utterances, enrolment)
    tested = {(utterances[name].speaker, utterances[name].phrase) for name in tests}
    eligible = {speaker for speaker, phrase in models if (speaker, phrase) in tested}
    if own and len(eligible) < count:
        raise ValueError(
            f"dev_speakers={count}, but {len(eligible)} of the corpus's development speakers say a phrase more "
            f"often than the {enrolment} times that enrol it: ask for fewer"
        )
    return choose_held_out(eligible, {utterance.speaker for utterance in utterances.values()}, count, seed)


def prepare_from_hparams(
    prepare: Callable[..., PhrasePreparation], hparams: Mapping[str, object], **options
) -> PhrasePreparation:
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
    PhrasePreparation
        What `prepare` gives.

    Raises
    ------
    ValueError
        As `prepare`, and for an option that it does not have.
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
