"""Voiceprints in an SQLite file: recognising and opening it, its errors, and the search in memory."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from speechbrain_bccmt.voiceprints.database import (
    refuse_newer,
    refuse_other_model,
    refuse_other_size,
    sum_directions,
    unit_directions,
)

_MAGIC = b"SQLite format 3\0"
_APPLICATION = 0x62636D74  # "bcmt", in the file's header: marks it as ours
_VERSION = 3
_SCHEMA = """
CREATE TABLE model (fingerprint TEXT NOT NULL, source TEXT NOT NULL, size INTEGER NOT NULL, revision TEXT NOT NULL);
CREATE TABLE speaker (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE utterance (
    id INTEGER PRIMARY KEY,
    speaker INTEGER NOT NULL REFERENCES speaker (id),
    embedding BLOB NOT NULL,
    seconds REAL NOT NULL,
    file TEXT NOT NULL,
    enrolled TEXT NOT NULL,
    label TEXT NOT NULL DEFAULT '',
    bandwidth REAL
);
CREATE INDEX utterance_of ON utterance (speaker);
"""
# Columns of an utterance that were added in a version: name, type, and value for older files. A program that only
# reads such a file may not be able to change it, and sees it with these values.
_COLUMNS = {2: ("label", "TEXT NOT NULL DEFAULT ''", "''"), 3: ("bandwidth", "REAL", "NULL")}
# How long to wait for another writer, in seconds. A write takes milliseconds.
WAIT_SECONDS = 30.0
_ROWS_PER_READ = 16384
# Scores held at once, 4 bytes each: 64 MB.
_SCORES_PER_BLOCK = 16_000_000


class VoicePrintFile:
    """An SQLite file with the voiceprints of one model; see `voiceprints.database.Database`.

    Parameters
    ----------
    path : str or Path
        The file.
    fingerprint : str or None
        The model's; None if prints are neither made nor compared.
    source : str
        Where the model is, for messages.

    Examples
    --------
    >>> file = VoicePrintFile(getfixture("tmp_path") / "voices.sqlite", "0123456789abcdef")
    >>> with file.writing(size=192, create=True) as connection:
    ...     _ = connection.execute("INSERT INTO speaker (name) VALUES ('Ada')")
    >>> with file.reading() as connection:
    ...     connection.execute("SELECT name FROM speaker").fetchall()
    [('Ada',)]
    """

    def __init__(self, path: str | Path, fingerprint: str | None = None, source: str = ""):
        self.path, self.fingerprint, self.source = Path(path), fingerprint, str(source)
        self.place = str(path)
        # Names, their unit directions (n, d), and the revision of the file that they come from.
        self._cached: tuple[list[str], np.ndarray, str] | None = None

    def exists(self) -> bool:
        """Return whether there is such a file."""
        return self.path.exists()

    @contextlib.contextmanager
    def reading(self, size: int | None = None) -> Iterator[sqlite3.Connection | None]:
        """Open the file for one transaction on a consistent state.

        Parameters
        ----------
        size : int or None
            Size of the embeddings to be compared; None if none will be.

        Yields
        ------
        sqlite3.Connection or None
            None if the file is still empty.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read, is not a store, is damaged, or holds prints of another model.
        """
        with self._open("rw") as connection:
            connection.execute("BEGIN")
            if not self._is_begun(connection):
                yield None
                return
            if missing := _missing_columns(connection):
                columns = "".join(f", {value} AS {name}" for name, _, value in missing)
                connection.execute(f"CREATE TEMP VIEW utterance AS SELECT *{columns} FROM main.utterance")
            if size is not None:
                self._check_size(connection, size)
            yield connection

    @contextlib.contextmanager
    def writing(self, size: int | None = None, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file for the only writing transaction, committed at the end unless there is an error.

        Parameters
        ----------
        size : int or None
            Size of the embeddings to be written; None if none will be.
        create : bool
            Create a new store if there is no file.

        Yields
        ------
        sqlite3.Connection
            With all tables in place.

        Raises
        ------
        OSError, ValueError
            As for `reading`, or if another program keeps writing.
        """
        with self._open("rwc" if create else "rw") as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not self._is_begun(connection):
                # Not executescript, which would commit.
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            else:
                for name, kind, _ in _missing_columns(connection):
                    connection.execute(f"ALTER TABLE utterance ADD COLUMN {name} {kind}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            if size is not None and not self._check_size(connection, size):
                connection.execute(
                    "INSERT INTO model VALUES (?, ?, ?, '')", (self.fingerprint, self.source, size)
                )
            yield connection
            if size is None and connection.execute("SELECT 1 FROM speaker LIMIT 1").fetchone() is None:
                connection.execute("DELETE FROM model")  # nobody is left: free for any model
            connection.execute("UPDATE model SET revision = ?", (uuid.uuid4().hex,))
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction, and report errors in our own words.

        Each has its own connection, so threads and forked processes share none. What is not committed at the end is
        rolled back.
        """
        self._check_file(mode)
        try:
            # Not mode=ro: whoever reads first after a kill has to undo the unfinished write.
            uri = f"{self.path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS, isolation_level=None)
            with contextlib.closing(connection):
                connection.execute("PRAGMA secure_delete = ON")
                yield connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                error = f"another program has been writing it for {WAIT_SECONDS:g} s"
            raise OSError(f"{self.path}: cannot be used as store of voiceprints: {error}") from None
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: is damaged, or no store of voiceprints: {error}") from error

    def _check_file(self, mode: str) -> None:
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path}: is a folder, expected a store of voiceprints")
        if not self.path.exists():
            if mode != "rwc":
                raise FileNotFoundError(f"{self.path}: there is no such store of voiceprints")
            if not self.path.absolute().parent.is_dir():
                raise FileNotFoundError(f"{self.path}: there is no folder {self.path.absolute().parent}")
            return
        if not self.path.is_file():
            raise OSError(f"{self.path}: is no regular file")
        with open(self.path, "rb") as file:
            start = file.read(len(_MAGIC))
        # An empty file is a store that has not been created yet.
        if start not in (b"", _MAGIC):
            raise ValueError(f"{self.path}: is no store of voiceprints (not an SQLite file)")

    def _is_begun(self, connection: sqlite3.Connection) -> bool:
        """Check that the file is a store, and of this model; False if it is still empty."""
        application, tables = (
            connection.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "SELECT count(*) FROM sqlite_master")
        )
        if application == 0 and tables == 0:
            return False
        if application != _APPLICATION:
            raise ValueError(f"{self.path}: is an SQLite file, but no store of voiceprints")
        refuse_newer(self.place, _version(connection), _VERSION)
        model = connection.execute("SELECT fingerprint, source FROM model").fetchone()
        if model is not None:  # somebody is enrolled
            refuse_other_model(self.place, model, (self.fingerprint, self.source))
        return True

    def _check_size(self, connection: sqlite3.Connection, size: int) -> bool:
        """Check the size of embeddings; False if the file has no model yet."""
        model = connection.execute("SELECT size FROM model").fetchone()
        if model is not None:
            refuse_other_size(self.place, model[0], size)
        return model is not None

    def keep_directions(self, connection: sqlite3.Connection, speakers, directions: np.ndarray) -> None:
        """Store nothing: the search computes the directions from the embeddings."""

    def purge(self) -> None:
        """Do nothing: deleted data is overwritten at once."""

    def build_index(self, memory_mb: int) -> None:
        """Refuse: the search is one product with all prints in memory."""
        raise ValueError(f"{self.place}: a file is searched without an index; PostgreSQL has one")

    def search(self, probes: np.ndarray, n_best: int) -> list[list[tuple[str, float]]]:
        """Return the best names and their cosines for each unit probe (p, d), by one exact product with all prints."""
        size, found = probes.shape[1], []
        with self.reading(size) as connection:
            names, matrix = self._matrix(connection, size)
        step = max(1, _SCORES_PER_BLOCK // max(1, len(names)))
        for start in range(0, len(probes), step):
            for scores in probes[start : start + step] @ matrix.T:
                best = np.arange(len(names))
                if n_best < len(names):
                    best = np.argpartition(scores, len(names) - n_best)[-n_best:]
                best = best[np.argsort(-scores[best], kind="stable")]
                found.append([(names[i], float(scores[i])) for i in best])
        return found

    def _matrix(self, connection: sqlite3.Connection | None, size: int) -> tuple[list[str], np.ndarray]:
        """Return all names and their unit directions (n, d), read again if the file has changed."""
        model = connection and connection.execute("SELECT revision FROM model").fetchone()
        if model is None:
            return [], np.empty((0, size), dtype=np.float32)
        if self._cached is None or self._cached[2] != model[0]:
            self._cached = None  # makes room
            self._cached = (*self._read_matrix(connection, size), model[0])
        return self._cached[:2]

    def _read_matrix(self, connection: sqlite3.Connection, size: int) -> tuple[list[str], np.ndarray]:
        numbers, names = array("q"), []
        for number, name in connection.execute("SELECT id, name FROM speaker ORDER BY id"):
            numbers.append(number)
            names.append(name)
        ids = np.frombuffer(numbers, dtype=np.int64)
        sums = np.zeros((len(names), size), dtype=np.float32)
        rows = connection.execute("SELECT speaker, embedding FROM utterance ORDER BY speaker")
        while some := rows.fetchmany(_ROWS_PER_READ):
            if any(len(blob) != 4 * size for _, blob in some):
                raise ValueError(f"{self.path}: is damaged, an embedding has not the size {size}")
            vectors = np.frombuffer(b"".join([blob for _, blob in some]), dtype="<f4").reshape(-1, size)
            first, last = np.searchsorted(ids, [some[0][0], some[-1][0]])
            try:
                sums[first : last + 1] += sum_directions(
                    ids[first : last + 1], [number for number, _ in some], vectors
                )
            except ValueError as error:
                raise ValueError(f"{self.path}: is damaged: {error}") from error
        return names, unit_directions(sums)


def _missing_columns(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return [column for version, column in _COLUMNS.items() if version > _version(connection)]


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]
