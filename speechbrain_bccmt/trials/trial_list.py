"""What a trial list is: pairs of an enrolment and a test utterance, or of a model and a test utterance.

A *model* is a speaker (in text-dependent verification: a speaker saying one phrase) who enrols with several
utterances. A list without models is the special case in which each enrolment is one utterance.
"""

from __future__ import annotations

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
        (trials,) booleans: True where the trial is to be accepted (one speaker and, in text-dependent
        verification, the right phrase).
    models : list of EnrolmentModel or None
        The models named, in order of first appearance; None where each enrolment is one utterance.
    trial_type : numpy.ndarray or None
        (trials,) small integers: the type of each trial as index into `trial_types`; None where the list
        knows only target and non-target.
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
        """What `enrol` points into: the ids of the models, or of the utterances where there are none."""
        return self.ids if self.models is None else [model.id for model in self.models]

    def is_type(self, name: str) -> np.ndarray:
        """Tell which trials are of one type, (trials,) booleans; none where the list has no such type."""
        if self.trial_type is None or name not in self.trial_types:
            return np.zeros(len(self), dtype=bool)
        return self.trial_type == self.trial_types.index(name)
