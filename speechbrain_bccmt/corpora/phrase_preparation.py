"""The preparation of text-dependent corpora: dev trials of the four types, against models of several utterances."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from speechbrain_bccmt.corpora.phrase_trials import enrol_phrases, make_phrase_trials
from speechbrain_bccmt.corpora.phrases import PhraseUtterance
from speechbrain_bccmt.corpora.preparation import DevTrials, Preparation, prepare_corpus
from speechbrain_bccmt.trials.write import format_models, format_trials


def prepare_phrases(
    utterances: Mapping[str, PhraseUtterance],
    save_folder: str | Path,
    *lists,
    dev_speakers: int = 10,
    dev_trials: int = 4000,
    enrolment: int = 3,
    seed: int = 1986,
    options: object = None,
    **others,
) -> Preparation:
    """Prepare a phrase corpus; see `prepare_corpus`.

    Parameters
    ----------
    utterances : mapping of str to PhraseUtterance
        The corpus by utterance id.
    save_folder : str or Path
        Where the files are written.
    *lists
        `test_lists`, `depends_on` and `tested` of `prepare_corpus`.
    dev_speakers : int
        Speakers for the dev set, from part "dev" if there is one, else held out of training; 0 for none.
    dev_trials : int
        Trials over them, spread evenly over the four types.
    enrolment : int
        Utterances of each model of the dev trials.
    seed : int
        Seed of the choice of speakers and trials.
    options : object
        Anything else the outcome depends on, serialisable as JSON.
    **others
        Further options of `prepare_corpus`.

    Returns
    -------
    Preparation
        Paths and counts.

    Raises
    ------
    ValueError
        As `prepare_corpus`, and if the corpus has too few development speakers.
    """
    return prepare_corpus(
        utterances,
        save_folder,
        partial(_find_eligible, count=dev_speakers, enrolment=enrolment),
        partial(_draw, count=dev_trials, enrolment=enrolment, seed=seed),
        *lists,
        dev_speakers=dev_speakers,
        seed=seed,
        options=[options, dev_trials, enrolment],
        **others,
    )


def _find_eligible(utterances: dict[str, PhraseUtterance], count: int, enrolment: int) -> set[str]:
    """Return the speakers who can be in a target trial: of part dev, if there is one."""
    own = {name: utterance for name, utterance in utterances.items() if utterance.part == "dev"}
    models, tests = enrol_phrases(own or utterances, enrolment)
    tested = {(utterances[name].speaker, utterances[name].phrase) for name in tests}
    eligible = {speaker for speaker, phrase in models if (speaker, phrase) in tested}
    if own and len(eligible) < count:
        raise ValueError(
            f"dev_speakers={count}, but {len(eligible)} of the corpus's development speakers say a phrase more "
            f"often than the {enrolment} times that enrol it: ask for fewer"
        )
    return eligible


def _draw(utterances: dict[str, PhraseUtterance], count: int, enrolment: int, seed: int) -> DevTrials:
    trials = make_phrase_trials(utterances, count, seed, enrolment)
    return DevTrials(sorted(trials.ids), len(trials), format_trials(trials, "sdsv"), format_models(trials))
