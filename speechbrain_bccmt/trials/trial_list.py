"""Trial lists: pairs of an enrolment and a test utterance, or of a model and a test utterance.

A *model* is a speaker (in text-dependent verification: a speaker saying one phrase) who enrols with several
utterances. A list without models is the special case in which each enrolment is one utterance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".m4a", ".mp3", ".aac", ".sph")


def utterance_id(name: str) -> str:
    r"""Return the id of an utterance: its path inside the wav folder, with "/" and without the extension.

    Only known audio extensions are removed, as an id may contain dots.

    Examples
    --------
    >>> utterance_id("id10270/5r0dWxy17C8/00001.wav")
    'id10270/5r0dWxy17C8/00001'
    >>> utterance_id(r"id10270\5r0dWxy17C8\00001.FLAC")
    'id10270/5r0dWxy17C8/00001'
    """
    name = name.replace("\\", "/").removeprefix("./")
    stem, dot, extension = name.rpartition(".")
    return stem if dot and "." + extension.lower() in AUDIO_EXTENSIONS else name


def speaker_of(utterance: str) -> str:
    """Return the speaker of an utterance id: its first folder.

    Examples
    --------
    >>> speaker_of("id10270/5r0dWxy17C8/00001")
    'id10270'
    """
    return utterance.split("/", 1)[0]


@dataclass(frozen=True)
class EnrolmentModel:
    """A speaker enrolled with one or several utterances.

    Attributes
    ----------
    id : str
        Its name in trial lists.
    utterances : tuple of int
        Enrolment utterances as indices into the ids of the `Trials` it belongs to, or as rows of embeddings.
    phrase : str or None
        The phrase they say, in text-dependent verification.

    Examples
    --------
    >>> EnrolmentModel("model_00000", (0, 1, 2), phrase="05").utterances
    (0, 1, 2)
    """

    id: str
    utterances: tuple[int, ...]
    phrase: str | None = None


@dataclass(frozen=True)
class Trials:
    """Pairs to compare: an enrolment (an utterance, or a model of several) and a test utterance.

    Attributes
    ----------
    ids : list of str
        The utterances named, each once, in order of first appearance; with models, those of the models
        first.
    enrol, test : numpy.ndarray
        (trials,) integers: the enrolment and the test utterance of each trial as indices into `ids`; with
        models, `enrol` is an index into `models`.
    target : numpy.ndarray
        (trials,) booleans: True where the trial should be accepted (one speaker and, in text-dependent verification,
        the right phrase).
    models : list of EnrolmentModel or None
        The models named, in order of first appearance; None if each enrolment is one utterance.
    trial_type : numpy.ndarray or None
        (trials,) small integers: the type of each trial as an index into `trial_types`; None if the list has only
        target and non-target.
    trial_types : tuple of str
        Names of the trial types, such as "target-wrong": the right speaker with the wrong phrase.

    Examples
    --------
    >>> trials = Trials(["a/1", "a/2", "a/3"], np.array([0]), np.array([2]), np.array([True]))
    >>> len(trials), trials.enrolment_ids[trials.enrol[0]]
    (1, 'a/1')
    """

    ids: list[str]
    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray
    models: list[EnrolmentModel] | None = None
    trial_type: np.ndarray | None = None
    trial_types: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.target)

    @property
    def speakers(self) -> set[str]:
        """Every speaker named, in either column."""
        return {speaker_of(utterance) for utterance in self.ids}

    @property
    def enrolment_ids(self) -> list[str]:
        """The ids that `enrol` points into: of the models, or of the utterances if there are none."""
        return self.ids if self.models is None else [model.id for model in self.models]

    def is_type(self, name: str) -> np.ndarray:
        """Return which trials are of one type, (trials,) booleans; none if the list has no such type."""
        if self.trial_type is None or name not in self.trial_types:
            return np.zeros(len(self), dtype=bool)
        return self.trial_type == self.trial_types.index(name)


def trial_speakers(
    trials: Trials, speakers: Mapping[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the speakers of each trial.

    Parameters
    ----------
    trials : Trials
        The trials.
    speakers : mapping of str to str, optional
        The speaker of each utterance (Kaldi's utt2spk). By default the first folder of its id.

    Returns
    -------
    enrol_speaker, test_speaker : numpy.ndarray
        (M,) integers: equal numbers for equal speakers. A model's speaker is that of its first utterance.

    Raises
    ------
    ValueError
        If `speakers` lacks an utterance.

    Examples
    --------
    >>> trials = Trials(["a/1", "a/2", "b/1"], np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    >>> [side.tolist() for side in trial_speakers(trials)]
    [[0, 0], [0, 1]]
    """
    if speakers is not None and (missing := [name for name in trials.ids if name not in speakers]):
        raise ValueError(
            f"no speaker is known of {len(missing)} utterances of the trials, such as {missing[0]}"
        )
    names = [speaker_of(name) if speakers is None else speakers[name] for name in trials.ids]
    code = np.unique(names, return_inverse=True)[1]
    enrolled = code
    if trials.models is not None:
        enrolled = code[[model.utterances[0] for model in trials.models]]
    return enrolled[trials.enrol], code[trials.test]


class _Lookup(dict):
    """Map from a name as spelled in a file to the index of its id, -1 if there is no such id."""

    def __init__(self, ids: Sequence[str], to_id):
        super().__init__()
        self.known = {name: index for index, name in enumerate(ids)}
        self.to_id = to_id

    def __missing__(self, name: str) -> int:
        index = self[name] = self.known.get(self.to_id(name), -1)
        return index


class TrialIndex:
    """Positions of pairs of names in a trial list.

    Parameters
    ----------
    trials : Trials
        The list; each pair once.

    Examples
    --------
    >>> trials = Trials(["a/1", "a/2", "b/1"], np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    >>> TrialIndex(trials).find(["a/1.wav", "a/1.wav", "a/2.wav"], ["b/1.wav", "a/2.wav", "a/1.wav"]).tolist()
    [1, 0, -1]
    """

    def __init__(self, trials: Trials):
        self._test = _Lookup(trials.ids, utterance_id)
        self._enrol = self._test if trials.models is None else _Lookup(trials.enrolment_ids, str)
        self._width = len(trials.ids)
        pairs = trials.enrol.astype(np.int64) * self._width + trials.test
        self._order = np.argsort(pairs, kind="stable")
        self._pairs = pairs[self._order]

    def find(self, enrol: Sequence[str], test: Sequence[str]) -> np.ndarray:
        """Find pairs of names, spelled with or without the extension of an audio file.

        Parameters
        ----------
        enrol, test : sequence of str
            (N,) names; `enrol` holds names of models if the list has them.

        Returns
        -------
        numpy.ndarray
            (N,) numbers of trials, -1 where the list has no such trial. The order of the sides matters.
        """
        first = np.fromiter(map(self._enrol.__getitem__, enrol), np.int64)
        second = np.fromiter(map(self._test.__getitem__, test), np.int64)
        pairs = first * self._width + second
        place = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        found = (first >= 0) & (second >= 0) & (self._pairs[place] == pairs)
        return np.where(found, self._order[place], -1)
