"""Preparation of phrase corpora described by a CSV of utterance, speaker and phrase."""

from __future__ import annotations

from pathlib import Path

from speechbrain_bccmt.corpora.phrase_preparation import prepare_phrases
from speechbrain_bccmt.corpora.phrases import absolute, read_phrase_csv
from speechbrain_bccmt.corpora.preparation import Preparation
from speechbrain_bccmt.trials.read import read_trials


def prepare_phrase_csv(
    data_folder: str | Path,
    save_folder: str | Path,
    csv_file: str | Path | None = None,
    model_enrollment: str | Path | None = None,
    trials: str | Path | None = None,
    **options,
) -> Preparation:
    """Prepare a corpus described by a CSV of utterance, speaker and phrase, for training and verification.

    The speakers named in the trial list are the test speakers: none of them is trained on.

    Parameters
    ----------
    data_folder : str or Path
        Where the audio is, see `read_phrase_csv`.
    save_folder : str or Path
        Where the files are written.
    csv_file : str or Path, optional
        See `read_phrase_csv`. Default: `meta/utterances.csv` in the data folder.
    model_enrollment, trials : str or Path, optional
        Enrolment file and trial list to test with, in the layout of the SdSV challenge (see `read_trials`). Default:
        `meta/model_enrollment.txt` and `meta/trials.txt` in the data folder, if present; without them, all speakers are
        for training.
    **options
        See `prepare_phrases`: `class_of`, `dev_speakers`, `dev_trials`, `enrolment`, `training`, `seed`,
        `min_duration`, `max_unreadable`, `workers` and `progress`.

    Returns
    -------
    Preparation
        Paths and counts.

    Raises
    ------
    FileNotFoundError
        If the CSV, the data folder or a list is missing.
    ValueError
        As `read_phrase_csv`, `read_trials` and `prepare_phrases`; also if there is one list without the other.

    Examples
    --------
    >>> import soundfile
    >>> folder, rows = getfixture("tmp_path"), ["utterance,speaker,phrase"]
    >>> for speaker in ("anna", "ben", "cleo", "dora"):
    ...     for phrase in ("hello", "bye"):
    ...         for take in range(4):
    ...             soundfile.write(folder / f"{speaker}-{phrase}-{take}.wav", [0.1] * 800, 16000)
    ...             rows.append(f"{speaker}-{phrase}-{take}.wav,{speaker},{phrase}")
    >>> (folder / "meta").mkdir()
    >>> _ = (folder / "meta" / "utterances.csv").write_text("\\n".join(rows))
    >>> made = prepare_phrase_csv(folder, folder / "save", dev_speakers=2, dev_trials=16, progress=False)
    >>> made.n_speakers, made.n_utterances, made.n_dev_trials
    (2, 16, 16)
    """
    meta = Path(absolute(data_folder)) / "meta"
    if model_enrollment is None and trials is None:
        there = [path for path in (meta / "model_enrollment.txt", meta / "trials.txt") if path.is_file()]
        if len(there) == 1:
            raise ValueError(
                f"{there[0]} is alone: a trial list of models needs model_enrollment.txt and trials.txt"
            )
        model_enrollment, trials = there or (None, None)
    elif model_enrollment is None or trials is None:
        raise ValueError(
            "a trial list of models needs both files: give model_enrollment and trials, or neither"
        )
    csv_file = meta / "utterances.csv" if csv_file is None else csv_file
    utterances = read_phrase_csv(csv_file, data_folder)
    if trials is None:
        return prepare_phrases(utterances, save_folder, None, [csv_file], **options)
    named = read_trials(trials, known_ids=utterances, enrolment=model_enrollment).ids
    test_speakers = {utterances[name].speaker for name in named}
    chosen = set(named)
    split = {
        name: utterance._replace(part="test") if name in chosen else utterance
        for name, utterance in utterances.items()
        # Other utterances of the test speakers serve neither training nor test.
        if name in chosen or utterance.speaker not in test_speakers
    }
    if len(split) == len(named) and options.get("training", True):
        raise ValueError(
            f"no training speaker remains: {trials} names all {len(test_speakers)} speakers of {csv_file}"
        )
    return prepare_phrases(
        split, save_folder, (model_enrollment, trials), [csv_file, model_enrollment, trials], named, **options
    )
