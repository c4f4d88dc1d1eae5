"""Preparation of VoxCeleb, and any corpus in its layout, as CSV files for training and verification.

The layout is `wav/<speaker>/<session>/<utterance>.<ext>`; VoxCeleb itself, the demo corpus and other corpora in this
layout are all prepared by `prepare_voxceleb`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from speechbrain_bccmt.corpora.layout import EXTENSIONS, AudioFile, find_utterances, folder_of
from speechbrain_bccmt.corpora.m4a import convert_m4a
from speechbrain_bccmt.corpora.phrases import PhraseUtterance
from speechbrain_bccmt.corpora.preparation import DevTrials, Preparation, prepare_corpus
from speechbrain_bccmt.corpora.records import collector_paused
from speechbrain_bccmt.trials.read import format_trials, make_trials, read_trials, speaker_of


def _convert(
    found: dict[str, AudioFile], folder: str | None, workers: int | None, progress: bool
) -> tuple[dict[str, AudioFile], dict[str, str]]:
    """Replace m4a files by their conversions; return the files and, by path, why some failed."""
    sources = {utterance: file for utterance, file in found.items() if file.path.lower().endswith(".m4a")}
    if not sources:
        return found, {}
    if folder is None:
        raise ValueError(
            f"{len(sources)} files are m4a, from which crops are not read by offset: give a converted_folder "
            "to convert them into once (about 115 MB per hour of speech), or leave .m4a out of extensions"
        )
    root = os.path.join(os.path.abspath(os.path.expanduser(folder)), "wav")
    targets = {utterance: os.path.join(root, *f"{utterance}.wav".split("/")) for utterance in sources}
    paths = [file.path for file in sources.values()]
    failed = convert_m4a(paths, list(targets.values()), workers=workers, progress=progress)
    converted = dict(found)
    for utterance, source in sources.items():
        if source.path not in failed:
            status = os.stat(targets[utterance])
            converted[utterance] = AudioFile(targets[utterance], status.st_size, status.st_mtime_ns)
    return converted, failed


def prepare_voxceleb(
    data_folders: str | Path | Sequence[str | Path],
    save_folder: str | Path,
    verification_files: str | Path | Sequence[str | Path] = (),
    dev_speakers: int = 40,
    dev_trials: int = 10000,
    training: bool = True,
    seed: int = 1986,
    extensions: Sequence[str] = EXTENSIONS,
    min_duration: float = 0.0,
    vad: bool = False,
    max_unreadable: float = 0.01,
    converted_folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    unlabelled_folders: str | Path | Sequence[str | Path] = (),
) -> Preparation:
    """Write the CSV files and the dev trial list for training and verification.

    Only headers are read, in parallel. No speaker named in a verification list, in either column, is trained on. The
    files written belong together: a run that is killed, or finds the disk full, leaves the earlier set or none that
    counts as complete. If the inputs are unchanged, nothing is rewritten.

    Parameters
    ----------
    data_folders : str, Path or sequence
        Folders in VoxCeleb's layout (see `find_utterances`).
    save_folder : str or Path
        Where `train.csv`, `dev.csv`, `dev_trials.txt`, `test.csv`, `unreadable.txt` and `preparation.json`
        are written.
    verification_files : str, Path or sequence
        Trial lists in VoxCeleb's format (see `read_trials`); their utterances go into `test.csv`.
    dev_speakers : int
        Speakers held out of training for `dev.csv`; 0 for none.
    dev_trials : int
        Trials over them, half of them target trials, as far as the pairs allow.
    training : bool
        False to write only `test.csv`: only utterances of the trial lists are converted and read, no others need exist,
        and `dev_speakers` and `dev_trials` are ignored.
    seed : int
        Seed of the choice of speakers and trials.
    extensions : sequence of str
        Files to look for.
    min_duration : float
        In seconds; shorter utterances are neither trained on nor in the dev set.
    vad : bool
        See `prepare_corpus`; each file is then decoded whole.
    max_unreadable : float
        Share of files that may be unreadable; they are skipped and named in `unreadable.txt`.
    converted_folder : str or Path, optional
        Folder for m4a files converted to wav, once. Needed if there are any.
    workers : int, optional
        Number of files read, or converted, at a time. Default: chosen by the number of cores.
    progress : bool
        Whether to show progress bars.
    unlabelled_folders : str, Path or sequence
        Folders in the same layout with unknown speakers, whatever their folders are called: for training with losses
        that need no labels. Their rows of `train.csv` have no speaker.

    Returns
    -------
    Preparation
        Paths and counts.

    Raises
    ------
    FileNotFoundError
        If a data folder or trial list is missing, or there is no audio.
    ValueError
        If a trial list is malformed or names missing or unreadable utterances, an utterance is in two folders, too many
        files are unreadable, or no training speaker remains.
    OSError
        If the disk is full.

    Examples
    --------
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> for speaker in ("id1", "id2", "id3"):
    ...     session = folder / "corpus" / "wav" / speaker / "session"
    ...     session.mkdir(parents=True)
    ...     for name in ("00001.wav", "00002.wav"):
    ...         soundfile.write(session / name, [0.1] * 800, 16000)
    >>> result = prepare_voxceleb(folder / "corpus", folder / "save", dev_speakers=2, progress=False)
    >>> result.n_speakers, result.n_utterances, result.n_dev_trials
    (1, 2, 6)
    """
    folders, lists, unlabelled = (
        [given] if isinstance(given, (str, Path)) else list(given)
        for given in (data_folders, verification_files, unlabelled_folders)
    )
    for path in lists:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no trial list at {path}")
    if not training and not lists:
        raise ValueError("training=False prepares the utterances of trial lists: give verification_files")
    if seed < 0:
        raise ValueError(f"seed={seed}: it must not be negative")
    if training and dev_speakers and dev_trials < 2:
        raise ValueError(f"dev_trials={dev_trials}: one target and one non-target trial are the least")

    with collector_paused():
        found = find_utterances([str(folder) for folder in folders], extensions)
        nameless = find_utterances([str(folder) for folder in unlabelled], extensions) if unlabelled else {}
    if clashes := found.keys() & nameless.keys():
        raise ValueError(f"utterance '{min(clashes)}' is in a data folder and in an unlabelled one")
    tested: dict[str, None] = {}
    for path in lists:
        tested.update(dict.fromkeys(read_trials(path, known_ids=found.keys()).ids))
    excluded = {speaker_of(utterance) for utterance in tested}
    # Other utterances of the test speakers serve neither training nor test: they are not read.
    wanted = {
        utterance: file
        for utterance, file in found.items()
        if utterance in tested or (training and speaker_of(utterance) not in excluded)
    }
    if training and len(wanted) == len(tested):
        raise ValueError(
            f"no training speaker remains: the trial lists name {len(excluded)} speakers, all of those found. "
            "Add data folders with other speakers"
        )
    if training:
        wanted |= nameless
    wanted, failed = _convert(wanted, converted_folder, workers, progress)
    utterances = {
        name: PhraseUtterance(
            file, "" if name in nameless else speaker_of(name), "", "test" if name in tested else "train"
        )
        for name, file in [*((name, wanted[name]) for name in tested), *wanted.items()]
    }
    return prepare_corpus(
        utterances,
        save_folder,
        partial(_find_eligible, folders=folders),
        partial(_draw, folders=folders, count=dev_trials, seed=seed),
        depends_on=lists,
        tested=tested,
        failed=failed,
        dev_speakers=dev_speakers,
        training=training,
        seed=seed,
        min_duration=min_duration,
        vad=vad,
        max_unreadable=max_unreadable,
        workers=workers,
        progress=progress,
        options=dev_trials,
    )


def _corpora(utterances: dict[str, PhraseUtterance], folders: list) -> dict[str, int]:
    """Return the data folder of each speaker; for one in several, that of an utterance."""
    return {utterance.speaker: folder_of(utterance.file.path, folders) for utterance in utterances.values()}


def _find_eligible(utterances: dict[str, PhraseUtterance], folders: list) -> dict[str, int]:
    """Return the speakers with two utterances or more, which target trials need, and the data folder of each."""
    spoken = Counter([utterance.speaker for utterance in utterances.values()])
    corpora = _corpora(utterances, folders)
    return {speaker: corpora[speaker] for speaker, count in spoken.items() if count > 1 and speaker}


def _draw(utterances: dict[str, PhraseUtterance], folders: list, count: int, seed: int) -> DevTrials:
    """Draw as many target as non-target trials, as far as the pairs allow; two corpora never meet."""
    ids, speakers = list(utterances), [utterance.speaker for utterance in utterances.values()]
    corpora = _corpora(utterances, folders)
    # If each corpus has one speaker, they have nobody else to meet.
    apart = len(set(corpora.values())) < len(corpora)
    groups = [str(corpora[speaker]) for speaker in speakers] if apart else None
    trials = make_trials(ids, speakers, count // 2, count - count // 2, seed, groups=groups)
    return DevTrials(ids, len(trials), format_trials(trials))
