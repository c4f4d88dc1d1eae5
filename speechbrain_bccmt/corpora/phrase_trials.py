"""Drawing trials of the four types, against models of several utterances, over any phrase corpus.

In text-dependent verification a model stands for one speaker saying one phrase, and a trial is a target trial only if
both are right:

    target-correct    the speaker says the phrase of the model
    target-wrong      the speaker says another phrase
    impostor-correct  another speaker says the phrase
    impostor-wrong    another speaker says another phrase

The lists are written in the layout of the SdSV challenge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from speechbrain_bccmt.corpora.phrases import PhraseUtterance
from speechbrain_bccmt.trials.table import TRIAL_TYPES
from speechbrain_bccmt.trials.trial_list import EnrolmentModel, Trials

_TYPES = tuple(TRIAL_TYPES)


def enrol_phrases(
    utterances: Mapping[str, PhraseUtterance], enrolment: int = 3
) -> tuple[dict[tuple[str, str], tuple[str, ...]], list[str]]:
    """Choose the utterances that enrol each phrase of each speaker, and return the others as tests.

    Parameters
    ----------
    utterances : mapping of str to PhraseUtterance
        By id.
    enrolment : int
        How many enrol a phrase: those with `enrol` True, or, if there are none, the first by id. A speaker who said a
        phrase less often does not enrol it.

    Returns
    -------
    models : dict
        Speaker and phrase to the ids of the utterances that enrol, sorted.
    tests : list of str
        Ids of the utterances to test, sorted; none that enrols or may only enrol.
    """
    if enrolment < 1:
        raise ValueError(f"enrolment is {enrolment}: a model needs at least one utterance")
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sorted(utterances):
        said[utterances[name].speaker, utterances[name].phrase].append(name)
    models, tests = {}, []
    for pair, names in sorted(said.items()):
        marked = [name for name in names if utterances[name].enrol]
        free = [name for name in names if utterances[name].enrol is None]
        chosen = (marked or free)[:enrolment]
        if len(chosen) == enrolment:
            models[pair] = tuple(chosen)
        else:
            chosen = []
        tests += [name for name in names if name not in chosen and not utterances[name].enrol]
    return models, sorted(tests)


def make_phrase_trials(
    utterances: Mapping[str, PhraseUtterance],
    count: int,
    seed: int,
    enrolment: int = 3,
    types: Sequence[str] = _TYPES,
) -> Trials:
    """Draw a random list of trials in which every type and every model has the same weight.

    Impostors come from the speaker's group, wrong phrases from the phrase's group (see `PhraseUtterance`). No pair
    occurs twice. A type with too few pairs (or none, as with wrong phrases if there is only one phrase) gets as many as
    there are; the others do not make up for it.

    Parameters
    ----------
    utterances : mapping of str to PhraseUtterance
        By id; all take part.
    count : int
        Trials to draw, spread evenly over the types.
    seed : int
        The same seed and utterances give the same list, whatever the order of the utterances.
    enrolment : int
        Utterances of each model, see `enrol_phrases`.
    types : sequence of str
        The types to draw; target-correct must be one of them.

    Returns
    -------
    Trials
        In random order, with their `models` and `trial_types`.

    Raises
    ------
    ValueError
        If no target trial, or no trial of another type, can be drawn, or a type is unknown.

    Examples
    --------
    >>> from speechbrain_bccmt.corpora.layout import AudioFile
    >>> said = {
    ...     f"{speaker}/{phrase}/{take}": PhraseUtterance(AudioFile("", 0, 0), speaker, phrase)
    ...     for speaker in ("anna", "ben") for phrase in ("hello", "bye") for take in range(5)
    ... }
    >>> trials = make_phrase_trials(said, count=24, seed=1)
    >>> trials.models[0]
    EnrolmentModel(id='model_00000', utterances=(0, 1, 2), phrase='bye')
    >>> trials.ids[:3], np.bincount(trials.trial_type).tolist()
    (['anna/bye/0', 'anna/bye/1', 'anna/bye/2'], [6, 6, 6, 6])
    """
    if unknown := [kind for kind in types if kind not in _TYPES]:
        raise ValueError(f"no such type of trial as {unknown[0]}: expected some of {', '.join(_TYPES)}")
    if count < len(types):
        raise ValueError(f"count is {count}: one trial of each of the {len(types)} types is the least")
    models, tests = enrol_phrases(utterances, enrolment)
    rng = np.random.default_rng(seed)
    drawn = {
        kind: _draw(_candidates(kind, models, tests, utterances), count // len(types), rng)
        for kind in _TYPES
        if kind in types
    }
    if not len(drawn.get("target-correct", ())):
        raise ValueError(
            f"no target trial can be drawn: no speaker says a phrase more often than the {enrolment} times that "
            "enrol it"
        )
    if sum(map(len, drawn.values())) == len(drawn["target-correct"]):
        raise ValueError("no non-target trial can be drawn: one speaker says one phrase, or no others fit")
    pairs = np.concatenate(list(drawn.values()))
    kinds = np.repeat([_TYPES.index(kind) for kind in drawn], [len(pairs) for pairs in drawn.values()])
    shuffle = rng.permutation(len(pairs))
    used, enrol = np.unique(pairs[shuffle, 0], return_inverse=True)
    tested, test = np.unique(pairs[shuffle, 1], return_inverse=True)
    return _name(list(models.items()), used, enrol, [tests[i] for i in tested], test, kinds[shuffle])


def _name(models, used, enrol, tests, test, kinds) -> Trials:
    """Put models and tests together: ids of the enrolment utterances first."""
    index: dict[str, int] = {}
    named = [
        EnrolmentModel(
            f"model_{number:05d}",
            tuple(index.setdefault(name, len(index)) for name in models[number][1]),
            phrase="_".join(models[number][0][1].split()),  # one space-separated column in the lists
        )
        for number in used.tolist()
    ]
    position = np.array([index.setdefault(name, len(index)) for name in tests])
    return Trials(
        list(index),
        enrol,
        position[test],
        np.array(list(TRIAL_TYPES.values()))[kinds],
        named,
        kinds.astype(np.int8),
        _TYPES,
    )


def _candidates(kind, models, tests, utterances) -> Iterator[np.ndarray]:
    """Yield, for each model, the indices of the tests that make trials of a type with it."""
    code: dict[str, dict[str, int]] = defaultdict(dict)

    def codes(field: str) -> np.ndarray:
        seen = code[field]
        return np.array([seen.setdefault(getattr(utterances[name], field), len(seen)) for name in tests], int)

    speaker, phrase = codes("speaker"), codes("phrase")
    speaker_group, phrase_group = codes("speaker_group"), codes("phrase_group")
    for (its_speaker, its_phrase), enrolled in models.items():
        first = utterances[enrolled[0]]
        who = speaker == code["speaker"].get(its_speaker, -1)
        what = phrase == code["phrase"].get(its_phrase, -1)
        if kind.startswith("impostor"):
            who = ~who & (speaker_group == code["speaker_group"].get(first.speaker_group, -1))
        if kind.endswith("wrong"):
            what = ~what & (phrase_group == code["phrase_group"].get(first.phrase_group, -1))
        yield np.flatnonzero(who & what)


def _draw(candidates, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw up to `count` pairs (model, test): one of each model, then a second of each, ..."""
    pairs, turns = [], []
    for model, pool in enumerate(candidates):
        tests = rng.choice(pool, min(count, len(pool)), replace=False)
        pairs.append(np.stack([np.full_like(tests, model), tests], axis=1))
        turns.append(np.arange(len(tests)))
    if not pairs:
        return np.empty((0, 2), int)
    pairs, turns = np.concatenate(pairs), np.concatenate(turns)
    order = rng.permutation(len(pairs))  # so that chance, not the name, decides who gets one more
    return pairs[order[np.argsort(turns[order], kind="stable")[:count]]]
