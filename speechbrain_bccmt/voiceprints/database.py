"""The interface of a database of voiceprints, and the choice of the database by its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from speechbrain_bccmt.scoring.vectors import unit_length

# The rows of many speakers are read and written at once in chunks of this many.
CHUNK = 500


class Database(Protocol):
    """A database with the tables `model`, `speaker` and `utterance`; all SQL but the search is in `store`.

    A connection has `execute(sql, values)` and `executemany(sql, rows)`, with `?` for a value, and gives cursors.

    Attributes
    ----------
    place : str
        Where it is, for messages; without a password.
    """

    place: str

    def exists(self) -> bool:
        """Return whether a store has been created there."""

    def reading(self, size: int | None = None) -> AbstractContextManager[Any | None]:
        """Open a transaction on one consistent state; None if the store is still empty.

        `size` is that of the embeddings to be compared; None if none will be. Raises OSError or ValueError if there is
        no store, or if it cannot be used or holds prints of another model.
        """

    def writing(self, size: int | None = None, create: bool = False) -> AbstractContextManager[Any]:
        """Open the only writing transaction, and commit it at the end; `create` creates a store if needed."""

    def keep_directions(self, connection: Any, speakers: Sequence[int], directions: np.ndarray) -> None:
        """Store the directions (n, d) of speakers, by id, if the search needs them precomputed."""

    def search(self, probes: np.ndarray, n_best: int) -> list[list[tuple[str, float]]]:
        """Return the best names and their cosines, best first, for each unit probe (p, d); raises like `reading`."""

    def build_index(self, memory_mb: int) -> None:
        """Build a search index within this much memory, or raise ValueError if the database has no index."""

    def purge(self) -> None:
        """Rewrite what may still hold traces of deleted embeddings."""


def open_database(place: str | Path, fingerprint: str | None, source: str) -> Database:
    """Return the database of a place, without opening it.

    Parameters
    ----------
    place : str or Path
        Path of an SQLite file, or URL of a PostgreSQL database.
    fingerprint, source : str or None, str
        The model's.

    Raises
    ------
    ValueError
        If it is a URL of another kind.
    ImportError
        If the driver of the database is not installed.

    Examples
    --------
    >>> open_database("voices.sqlite", None, "").place
    'voices.sqlite'
    >>> open_database("redis://here", None, "")
    Traceback (most recent call last):
    ValueError: redis://here: is no store of voiceprints: expected a file or postgresql://user@host/database
    """
    found = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+)://", str(place))
    if found is None:
        from speechbrain_bccmt.voiceprints.sqlite import VoicePrintFile

        return VoicePrintFile(place, fingerprint, source)
    if found[1] not in ("postgresql", "postgres"):
        raise ValueError(
            f"{place}: is no store of voiceprints: expected a file or postgresql://user@host/database"
        )
    from speechbrain_bccmt.voiceprints.postgres import VoicePrintServer

    return VoicePrintServer(str(place), fingerprint, source)


def refuse_other_model(place: str, theirs: tuple[str, str], ours: tuple[str | None, str]) -> None:
    """Raise ValueError if two models, (fingerprint, source), are not the same; None stands for any model."""
    if ours[0] not in (None, theirs[0]):
        named = [f"{fingerprint}{f' ({source})' if source else ''}" for fingerprint, source in (theirs, ours)]
        raise ValueError(
            f"{place}: its voiceprints are of model {named[0]}, and cannot be compared with those of model "
            f"{named[1]}: use that model, or enrol all speakers anew in another store, by bccmt voiceprints reenroll"
        )


def refuse_other_size(place: str, theirs: int, ours: int) -> None:
    """Raise ValueError if the sizes of embeddings differ."""
    if theirs != ours:
        raise ValueError(f"{place}: its embeddings have size {theirs}, these have size {ours}")


def refuse_newer(place: str, version: int, known: int) -> None:
    """Raise ValueError if a store is of a version that this package does not know."""
    if version > known:
        raise ValueError(
            f"{place}: is a store of version {version}, this package knows version {known}: update it"
        )


def sum_directions(speakers: np.ndarray, owners: Sequence[int], vectors: np.ndarray) -> np.ndarray:
    """Sum the unit embeddings of each speaker; `unit_directions` turns the sums into mean directions.

    Parameters
    ----------
    speakers : numpy.ndarray
        Ids (n,), ascending.
    owners : sequence of int
        Speaker's id of each embedding, (u,), ascending.
    vectors : numpy.ndarray
        Embeddings (u, d).

    Returns
    -------
    numpy.ndarray
        (n, d), float32.

    Examples
    --------
    >>> sum_directions(np.array([3, 5]), [3, 3, 5], np.array([[2.0, 0], [0, 1], [0, 4]])).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    sums = np.zeros((len(speakers), vectors.shape[1]), dtype=np.float32)
    places, starts = np.unique(np.searchsorted(speakers, owners), return_index=True)
    if len(starts):
        sums[places] = np.add.reduceat(unit_length(vectors), starts, axis=0)
    return sums


def unit_directions(sums: np.ndarray) -> np.ndarray:
    """Scale sums (n, d) to unit length, in place; utterances that cancel out point nowhere, and score 0.

    Examples
    --------
    >>> unit_directions(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    norms = np.sqrt(np.einsum("nd,nd->n", sums, sums))[:, None]
    sums /= np.where(norms > 1e-6, norms, 1)
    sums[norms[:, 0] <= 1e-6] = 0
    return sums
