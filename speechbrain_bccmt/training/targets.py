"""Stored targets: embeddings of any teacher, computed once, that a student learns from without running the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speechbrain_bccmt.inference.embedding_files import read_embeddings

# Seconds by which the length of an utterance may differ from the one that its target was computed on.
TOLERANCE = 0.05


class StoredTargets:
    """Embeddings of the training utterances by a teacher in any framework, by utterance id and speed.

    Parameters
    ----------
    files : str, Path or mapping of int to str or Path
        An embedding file, as `bccmt embed -o` or extract_speaker_embeddings.py writes it; or a file for each speed in
        percent, whose embeddings are those of the utterances at that speed, under the same ids.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If a file is damaged, repeats an id, or the sizes of the embeddings differ between files.

    Examples
    --------
    >>> import numpy as np
    >>> path = getfixture("tmp_path") / "teacher.npz"
    >>> np.savez(path, ids=["a/1", "b/1"], embeddings=np.eye(2, 3))
    >>> StoredTargets(path)(["b/1"]).tolist()
    [[[0.0, 1.0, 0.0]]]
    """

    def __init__(self, files: str | Path | Mapping[int, str | Path]):
        files = files if isinstance(files, Mapping) else {100: files}
        self.files = {int(speed): read_embeddings(path) for speed, path in files.items()}
        self.paths = {int(speed): Path(path) for speed, path in files.items()}
        sizes = {found.vectors.shape[1] for found in self.files.values()}
        if len(sizes) > 1:
            raise ValueError(
                f"the targets have embeddings of sizes {sorted(sizes)}: all must be of one teacher"
            )
        (self.size,) = sizes

    @property
    def bank(self) -> Tensor:
        """All targets, (N, size), float32."""
        return torch.cat([torch.from_numpy(found.vectors) for found in self.files.values()])

    def check(self, seconds: Mapping[str, float], speeds: Sequence[int] = (100,)) -> None:
        """Check that there is a target for each utterance at each speed.

        Parameters
        ----------
        seconds : mapping of str to float
            Utterance id to its duration at the original speed.
        speeds : sequence of int
            In percent.

        Raises
        ------
        ValueError
            If a speed has no file, an utterance no target, or a target was computed on an utterance of another length.
        """
        if missing := [speed for speed in speeds if speed not in self.files]:
            raise ValueError(
                f"speeds={list(speeds)}, but target_files has none for {missing[0]}: embed the utterances at that "
                "speed, or leave it out"
            )
        for speed in speeds:
            found, path = self.files[speed], self.paths[speed]
            try:
                rows = found.rows_of(list(seconds))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            if found.seconds is None:
                continue
            for (name, duration), target in zip(seconds.items(), found.seconds[rows].tolist(), strict=True):
                if abs(target - duration * 100 / speed) > TOLERANCE:
                    raise ValueError(
                        f"{path}: the target of {name} is of {target:.2f} s, but the utterance has "
                        f"{duration * 100 / speed:.2f} s at speed {speed}: the targets are of other audio"
                    )

    def centre(self, groups: Mapping[str, int]) -> None:
        """Subtract each group's mean from its targets: what the recordings of a corpus have in common is not voice.

        Parameters
        ----------
        groups : mapping of str to int
            Utterance id to its corpus. Means are those of the first speed: what another speed does to a voice stays
            in its targets.
        """
        ids, number = list(groups), np.array(list(groups.values()))
        self.files = {speed: replace(found, vectors=found.vectors.copy()) for speed, found in self.files.items()}
        rows = {speed: found.rows_of(ids) for speed, found in self.files.items()}
        first = next(iter(self.files))
        for group in np.unique(number):
            own = number == group
            mean = self.files[first].vectors[rows[first][own]].mean(axis=0)
            for speed, found in self.files.items():
                found.vectors[rows[speed][own]] -= mean

    def __call__(self, ids: Sequence[str], speeds: Sequence[int] | None = None) -> Tensor:
        """Look up the targets of utterances.

        Parameters
        ----------
        ids : sequence of str
            Utterance ids.
        speeds : sequence of int, optional
            Speed of each in percent; 100 by default.

        Returns
        -------
        Tensor
            (utterances, 1, size), float32.

        Raises
        ------
        ValueError
            If an utterance has no target.
        """
        speeds = [100] * len(ids) if speeds is None else [int(speed) for speed in speeds]
        targets = torch.empty(len(ids), 1, self.size)
        for speed in set(speeds):
            places = [place for place, own in enumerate(speeds) if own == speed]
            found = self.files[speed]
            targets[places, 0] = torch.from_numpy(
                found.vectors[found.rows_of([ids[place] for place in places])]
            )
        return targets
