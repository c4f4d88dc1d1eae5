"""Find trials by the names of their two sides, to join what other files say of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechbrain_bccmt.trials.trial_list import Trials, utterance_id


class _Lookup(dict):
    """Name as spelled in a file to index of its id, -1 where there is no such id."""

    def __init__(self, ids: Sequence[str], to_id):
        super().__init__()
        self.known = {name: index for index, name in enumerate(ids)}
        self.to_id = to_id

    def __missing__(self, name: str) -> int:
        index = self[name] = self.known.get(self.to_id(name), -1)
        return index


class TrialIndex:
    """Where in a trial list a pair of names is.

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
            (N,) names; of models, where the list has them, in `enrol`.

        Returns
        -------
        numpy.ndarray
            (N,) numbers of trials, -1 where the list has no such trial. The order of the sides counts.
        """
        first = np.fromiter(map(self._enrol.__getitem__, enrol), np.int64)
        second = np.fromiter(map(self._test.__getitem__, test), np.int64)
        pairs = first * self._width + second
        place = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        found = (first >= 0) & (second >= 0) & (self._pairs[place] == pairs)
        return np.where(found, self._order[place], -1)
