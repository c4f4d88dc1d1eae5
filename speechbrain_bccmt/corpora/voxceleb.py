"""VoxCeleb, and any corpus in its layout, to the CSV files that training and verification read.

The layout is `wav/<speaker>/<session>/<utterance>.<ext>`; VoxCeleb itself, the demo corpus and other corpora
arranged so are all prepared by `prepare_voxceleb`.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from speechbrain_bccmt.audio.headers import read_utterances, report_unreadable
from speechbrain_bccmt.corpora.held_out import (
    choose_held_out,
    collector_paused,
    digest_inputs,
    earlier_result,
)
from speechbrain_bccmt.corpora.layout import EXTENSIONS, AudioFile, find_utterances
from speechbrain_bccmt.corpora.m4a import convert_m4a
from speechbrain_bccmt.corpora.utterance_csv import format_utterances
from speechbrain_bccmt.files import write_together
from speechbrain_bccmt.trials.read import format_trials, make_trials, read_trials, speaker_of

logger = logging.getLogger(__name__)

_FORMAT = 2  # of the files written; raised when they change, so that older ones are rebuilt


@dataclass(frozen=True)
class Preparation:
    """What `prepare_voxceleb` wrote.

    Attributes
    ----------
    test_csv : str
        Utterances named by the verification lists.
    train_csv, dev_csv : str or None
        Utterances to train on, and of held-out speakers; None where only test data was prepared.
    dev_trials : str or None
        Trial list over `dev_csv`; None where no speakers are held out.
    unreadable : str
        List of the files left out, with the reason of each.
    n_speakers, n_utterances : int
        In `train_csv`.
    n_hours : float
        Duration of `train_csv` in hours.
    n_dev_speakers, n_dev_utterances, n_dev_trials : int
        Of the held-out part.
    n_test_utterances : int
        In `test_csv`.
    n_excluded_speakers : int
        Speakers kept out of training as the verification lists name them.
    n_unreadable, n_short : int
        Files left out as unreadable, and as shorter than `min_duration`.
    rebuilt : bool
        False where the files of an earlier run were still valid.
    """

    test_csv: str
    train_csv: str | None
    dev_csv: str | None
    dev_trials: str | None
    unreadable: str
    n_speakers: int
    n_utterances: int
    n_hours: float
    n_dev_speakers: int
    n_dev_utterances: int
    n_dev_trials: int
    n_test_utterances: int
    n_excluded_speakers: int
    n_unreadable: int
    n_short: int
    rebuilt: bool


def _convert(
    found: dict[str, AudioFile], folder: str | None, workers: int | None, progress: bool
) -> tuple[dict[str, AudioFile], dict[str, str]]:
    """Replace m4a files by their conversions; return the files and, by path, why some failed."""
    sources = {utterance: file for utterance, file in found.items() if file.path.lower().endswith(".m4a")}
    if not sources:
        return found, {}
    if folder is None:
        raise ValueError(
            f"{len(sources)} files are m4a, which libsndfile cannot read: give a converted_folder "
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
    max_unreadable: float = 0.01,
    converted_folder: str | Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Preparation:
    """Write the CSV files and the dev trial list for training and verification.

    Only headers are read, in parallel. No speaker that a verification list names, in either column, is
    trained on. The files written belong together: a run that is killed, or finds the disk full, leaves the
    earlier set or none that counts as complete. With unchanged inputs nothing is written again.

    Parameters
    ----------
    data_folders : str, Path or sequence
        Folders in VoxCeleb's layout (see `find_utterances`).
    save_folder : str or Path
        Where `train.csv`, `dev.csv`, `dev_trials.txt`, `test.csv`, `unreadable.txt` and `preparation.json`
        are written.
    verification_files : str, Path or sequence
        Trial lists in VoxCeleb's format (see `read_trials`); their utterances make `test.csv`.
    dev_speakers : int
        Speakers held out of training for `dev.csv`; 0 for none.
    dev_trials : int
        Trials over them, half of them target trials, as far as there are so many pairs.
    training : bool
        False for `test.csv` alone: only utterances of the trial lists are converted and read, no others
        need be there, and `dev_speakers` and `dev_trials` do not count.
    seed : int
        Of the choice of speakers and trials.
    extensions : sequence of str
        Files to look for.
    min_duration : float
        In seconds; shorter utterances are neither trained on nor in the dev set.
    max_unreadable : float
        Share of files that may be unreadable; they are skipped and named in `unreadable.txt`.
    converted_folder : str or Path, optional
        Where m4a files are converted to wav, once. Needed where there are any.
    workers : int, optional
        Number of files read, or converted, at a time. Default: chosen by the number of cores.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Preparation
        Paths and counts.

    Raises
    ------
    FileNotFoundError
        Where a data folder or trial list is missing, or there is no audio, or m4a files but no ffmpeg.
    ValueError
        Where a trial list is malformed or names utterances that are not there or cannot be read, an
        utterance is in two folders, too many files are unreadable, or no training speaker remains.
    OSError
        Where the disk is full.

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
    folders = [data_folders] if isinstance(data_folders, (str, Path)) else list(data_folders)
    lists = [verification_files] if isinstance(verification_files, (str, Path)) else list(verification_files)
    for path in lists:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no trial list at {path}")
    if not training:
        dev_speakers = 0
        if not lists:
            raise ValueError("training=False prepares the utterances of trial lists: give verification_files")
    if dev_speakers == 1 or dev_speakers < 0:
        raise ValueError(f"dev_speakers={dev_speakers}: give two or more, or 0 for no dev set")
    if seed < 0:
        raise ValueError(f"seed={seed}: it must not be negative")
    if dev_speakers and dev_trials < 2:
        raise ValueError(f"dev_trials={dev_trials}: one target and one non-target trial are the least")
    save = Path(os.path.abspath(os.path.expanduser(save_folder)))
    manifest, report = save / "preparation.json", save / "unreadable.txt"

    with collector_paused():
        found = find_utterances([str(folder) for folder in folders], extensions)
    tested: dict[str, None] = {}
    for path in lists:
        tested.update(dict.fromkeys(read_trials(path, known_ids=found.keys()).ids))
    speaker = {utterance: speaker_of(utterance) for utterance in found}
    excluded = {speaker[utterance] for utterance in tested}
    # Of the speakers tested, other utterances serve neither training nor test: they are not read.
    wanted = {
        utterance: file
        for utterance, file in found.items()
        if utterance in tested or (training and speaker[utterance] not in excluded)
    }
    wanted, failed = _convert(wanted, converted_folder, workers, progress)
    options = {"dev": [dev_speakers, dev_trials, seed], "limits": [min_duration, max_unreadable]}
    current = digest_inputs([_FORMAT, options | {"training": training}], lists, wanted)
    if earlier := earlier_result(manifest, current):
        logger.info("The data in %s is up to date.", save)
        return Preparation(**earlier | {"rebuilt": False})

    with collector_paused():
        headers, reasons = read_utterances(wanted, failed, workers, progress)
    unreadable_text = report_unreadable(reasons, wanted, tested, max_unreadable, report)
    others = [utterance for utterance in headers if utterance not in tested]
    seconds = {utterance: header.frames / header.sample_rate for utterance, header in headers.items()}
    long = [utterance for utterance in others if seconds[utterance] >= min_duration]
    spoken = Counter([speaker[utterance] for utterance in long])
    # One utterance makes no target trial.
    eligible = [name for name, utterances in spoken.items() if utterances > 1]
    held_out = choose_held_out(eligible, spoken, dev_speakers, seed)
    train = [utterance for utterance in long if speaker[utterance] not in held_out]
    dev = [utterance for utterance in long if speaker[utterance] in held_out]
    if training and not train:
        raise ValueError(
            f"no training speaker remains: the trial lists name {len(excluded)} speakers, all of those found "
            f"with utterances of {min_duration:g} s or more. Add data folders with other speakers"
        )

    parts = {"train": train, "dev": dev, "test": list(tested)} if training else {"test": list(tested)}
    written = {name: save / f"{name}.csv" for name in parts}
    contents = {
        written[name]: format_utterances(part, wanted, headers, speaker) for name, part in parts.items()
    }
    contents[report] = unreadable_text
    trials = None
    if held_out:
        half = dev_trials // 2
        trials = make_trials(dev, [speaker[utterance] for utterance in dev], half, dev_trials - half, seed)
        contents[save / "dev_trials.txt"] = format_trials(trials)
    result = Preparation(
        test_csv=str(written["test"]),
        train_csv=str(written["train"]) if training else None,
        dev_csv=str(written["dev"]) if training else None,
        dev_trials=str(save / "dev_trials.txt") if held_out else None,
        unreadable=str(report),
        n_speakers=len(spoken) - len(held_out),
        n_utterances=len(train),
        n_hours=round(sum(seconds[utterance] for utterance in train) / 3600, 4),
        n_dev_speakers=len(held_out),
        n_dev_utterances=len(dev),
        n_dev_trials=len(trials) if trials else 0,
        n_test_utterances=len(tested),
        n_excluded_speakers=len(excluded),
        n_unreadable=len(reasons),
        n_short=len(others) - len(long),
        rebuilt=True,
    )
    sizes = {str(path): len(text.encode()) for path, text in contents.items()}
    seal = {"fingerprint": current, "sizes": sizes, "result": asdict(result)}
    write_together(contents, manifest, json.dumps(seal, indent=1))
    for name in ("train.csv", "dev.csv", "dev_trials.txt"):
        if save / name not in contents:
            (save / name).unlink(missing_ok=True)  # of an earlier run
    logger.info("Prepared %d utterances to train on and %d to test in %s.", len(train), len(tested), save)
    if reasons:
        logger.warning("%d unreadable files are left out; %s names them.", len(reasons), report)
    return result
