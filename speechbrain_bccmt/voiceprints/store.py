"""Voiceprints: enrolled speakers by name in one SQLite file, and the search for who is talking.

Axes: n names, u utterances, d size of an embedding, p probes.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from speechbrain_bccmt.scoring.cosine import unit_length
from speechbrain_bccmt.voiceprints.names import check_label, check_name
from speechbrain_bccmt.voiceprints.sqlite import VoicePrintFile

_ROWS_PER_READ = 16384
# Scores held at once, 4 bytes each: 64 MB.
_SCORES_PER_BLOCK = 16_000_000


@dataclass(frozen=True)
class EnrolledSpeaker:
    """A name in a store: its utterances, their seconds and labels, when the first and the last were enrolled (UTC)."""

    name: str
    utterances: int
    seconds: float
    first_enrolled: str
    last_enrolled: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """What is enrolled of a name: its embeddings (u, d), their seconds (u,), and a label of each ("": none)."""

    name: str
    embeddings: np.ndarray
    seconds: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Candidate:
    """An enrolled speaker, and the cosine with a probe."""

    name: str
    score: float


@dataclass(frozen=True)
class Identification:
    """Who is talking: `speaker`, None if unknown, and the best `candidates`, the highest score first.

    `margin` is how far the first one's score is above the next one's, infinite where there is no other name, and
    `threshold` what the first had to reach.
    """

    speaker: str | None
    candidates: tuple[Candidate, ...]
    margin: float = math.inf
    threshold: float = math.nan


class Voiceprints:
    """Voiceprints of one model in one SQLite file.

    A name has one utterance or several; its score is the cosine of the probe with the mean of their embeddings, each
    of unit length. Every write is one transaction: a kill, or a full disk, leaves the file as it was before. Several
    processes may read and write it at once. The embeddings of all names are kept in memory after the first search,
    4 n d bytes, until the file changes.

    Parameters
    ----------
    path : str or Path
        The file. It appears with the first enrolment.
    fingerprint : str or None
        Of the model, see `inference.fingerprint`. Prints of another model are refused. None: prints can be
        listed and deleted, no more.
    source : str
        Where the model is, for messages.

    Raises
    ------
    OSError, ValueError
        By every method: if the file cannot be read, is no store, is damaged, or holds prints of another model. It is
        left as it is.

    Examples
    --------
    >>> prints = Voiceprints(getfixture("tmp_path") / "voices.sqlite", "0123456789abcdef")
    >>> prints.enroll("Ada", [[1.0, 0.0], [0.8, 0.6]], [3.0, 4.5])
    2
    >>> prints.enroll("Grace", [[0.0, 2.0]], [3.0])
    1
    >>> found = prints.identify([[0.9, 0.1], [-1.0, 0.2]], threshold=0.6)
    >>> [identification.speaker for identification in found]
    ['Ada', None]
    >>> [candidate.name for candidate in found[1].candidates]
    ['Grace', 'Ada']
    >>> prints.delete("Grace"), [speaker.name for speaker in prints.speakers()]
    (1, ['Ada'])
    """

    def __init__(self, path: str | Path, fingerprint: str | None = None, source: str = ""):
        self.fingerprint = fingerprint
        self._file = VoicePrintFile(path, fingerprint, source)
        # Names, their unit embeddings (n, d), and the revision of the file that they are of.
        self._cached: tuple[list[str], np.ndarray, str] | None = None

    def check(self) -> None:
        """Raise what any other method would: the file is missing, damaged, no store or of another model."""
        with self._file.reading():
            pass

    def enroll(
        self,
        name: str,
        embeddings,
        seconds: Sequence[float],
        files: Sequence[str] | None = None,
        replace: bool = False,
        label: str = "",
    ) -> int:
        """Enrol a speaker, or add utterances to one.

        Parameters
        ----------
        name : str
            Any text of one line; spaces at its ends do not count.
        embeddings : array_like
            One for each utterance, (u, d).
        seconds : sequence of float
            Length of each utterance.
        files : sequence of str or None
            Where each came from, for who reads the store.
        replace : bool
            Forget the utterances that the name has so far.
        label : str
            How they were recorded, such as headset, phone or room.

        Returns
        -------
        int
            How many utterances were added: one that the name has already, to the bit, does not count twice.
        """
        return self.enroll_many([(name, embeddings, seconds, files)], replace, label)

    def enroll_many(self, speakers: Iterable[tuple], replace: bool = False, label: str = "") -> int:
        """Enrol many speakers in one transaction: all, or none where one is refused.

        Parameters
        ----------
        speakers : iterable of tuple
            `name`, `embeddings`, `seconds` and `files` of each, as for `enroll`.
        replace : bool
            Forget the utterances that these names have so far.
        label : str
            As for `enroll`.

        Returns
        -------
        int
            How many utterances were added.
        """
        if self.fingerprint is None:
            raise ValueError("to enrol speakers, the fingerprint of the model is needed")
        label = check_label(label) if label else ""
        # All is checked before the file is opened: nobody waits for a slow caller, and mistakes begin no file.
        checked = [_check_enrolment(*speaker) for speaker in speakers]
        sizes = sorted({vectors.shape[1] for _, vectors, _, _ in checked})
        if len(sizes) != 1:
            raise ValueError(
                f"embeddings have sizes {sizes}, expected one" if sizes else "there is nobody to enrol"
            )
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._file.writing(sizes[0], create=True) as connection:
            return sum(_add(connection, *speaker, now, replace, label) for speaker in checked)

    def delete(self, name: str) -> int:
        """Delete a speaker; the embeddings are overwritten in the file.

        Parameters
        ----------
        name : str
            As enrolled.

        Returns
        -------
        int
            How many utterances the name had.

        Raises
        ------
        ValueError
            If nobody of that name is enrolled.
        """
        name = check_name(name)
        with self._file.writing() as connection:
            speaker = connection.execute("SELECT id FROM speaker WHERE name = ?", (name,)).fetchone()
            if speaker is None:
                raise ValueError(f"{self._file.path}: no speaker '{name}' is enrolled")
            connection.execute("DELETE FROM speaker WHERE id = ?", speaker)
            return connection.execute("DELETE FROM utterance WHERE speaker = ?", speaker).rowcount

    def count(self) -> int:
        """Count the names."""
        with self._file.reading() as connection:
            return (
                0 if connection is None else connection.execute("SELECT count(*) FROM speaker").fetchone()[0]
            )

    def speakers(self) -> list[EnrolledSpeaker]:
        """List who is enrolled, by name."""
        with self._file.reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT name, count(*), sum(seconds), min(enrolled), max(enrolled), json_group_array(DISTINCT label) "
                "FROM speaker JOIN utterance ON speaker = speaker.id GROUP BY speaker.id ORDER BY name"
            )
            return [
                EnrolledSpeaker(*row, tuple(sorted(label for label in json.loads(labels) if label)))
                for *row, labels in rows
            ]

    def reference(self, name: str) -> Reference | None:
        """Return what is enrolled of a name, None where nothing is.

        Parameters
        ----------
        name : str
            As enrolled.
        """
        if self.fingerprint is None:
            raise ValueError("to compare voiceprints, the fingerprint of the model is needed")
        name = check_name(name)
        with self._file.reading() as connection:
            if connection is None:
                return None
            rows = connection.execute(
                "SELECT embedding, seconds, label FROM utterance "
                "WHERE speaker = (SELECT id FROM speaker WHERE name = ?) ORDER BY id",
                (name,),
            ).fetchall()
            if not rows:
                return None
            (size,) = connection.execute("SELECT size FROM model").fetchone()
        blobs, seconds, labels = zip(*rows, strict=True)
        if any(len(blob) != 4 * size for blob in blobs):
            raise ValueError(f"{self._file.path}: is damaged, an embedding has not the size {size}")
        vectors = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, size)
        return Reference(name, vectors, np.array(seconds), labels)

    def identify(self, embeddings, threshold: float, n_best: int = 5) -> list[Identification]:
        """Identify the enrolled speaker of each probe, or none of them.

        Parameters
        ----------
        embeddings : array_like
            One for each probe, (p, d).
        threshold : float
            The least cosine at which the best candidate is taken for the speaker. One that was calibrated on pairs
            of recordings lets a stranger pass the more often, the more names there are: see `identify_open_set`.
        n_best : int
            How many candidates to give.

        Returns
        -------
        list of Identification
            One for each probe.
        """
        if n_best < 1:
            raise ValueError(f"n_best is {n_best}, expected at least 1")
        if not np.isfinite(threshold):
            raise ValueError(f"threshold is {threshold}, expected a finite number")
        probes = unit_length(embeddings)
        names, matrix = self._matrix(probes.shape[1])
        if not names:
            return [Identification(None, ()) for _ in probes]
        found = []
        step = max(1, _SCORES_PER_BLOCK // len(names))
        for start in range(0, len(probes), step):
            for scores in probes[start : start + step] @ matrix.T:
                best, wanted = np.arange(len(names)), max(2, n_best)
                if wanted < len(names):
                    best = np.argpartition(scores, len(names) - wanted)[-wanted:]
                best = best[np.argsort(-scores[best], kind="stable")]
                margin = float(scores[best[0]] - scores[best[1]]) if len(best) > 1 else math.inf
                # Rounding may leave [-1, 1] by an ulp or two.
                candidates = tuple(
                    Candidate(names[i], min(1.0, max(-1.0, float(scores[i])))) for i in best[:n_best]
                )
                known = candidates[0].score >= threshold
                speaker = candidates[0].name if known else None
                found.append(Identification(speaker, candidates, margin, threshold))
        return found

    def _matrix(self, size: int) -> tuple[list[str], np.ndarray]:
        """Return all names and their unit embeddings (n, d), read anew where the file has changed."""
        if self.fingerprint is None:
            raise ValueError("to identify speakers, the fingerprint of the model is needed")
        with self._file.reading(size) as connection:
            model = connection and connection.execute("SELECT revision FROM model").fetchone()
            if not model:
                return [], np.empty((0, size), dtype=np.float32)
            if self._cached is None or self._cached[2] != model[0]:
                self._cached = None  # makes room
                self._cached = (*self._read_matrix(connection, size), model[0])
            return self._cached[:2]

    def _read_matrix(self, connection: sqlite3.Connection, size: int) -> tuple[list[str], np.ndarray]:
        speakers = connection.execute("SELECT id, name FROM speaker ORDER BY id").fetchall()
        ids = np.array([number for number, _ in speakers], dtype=np.int64)
        sums = np.zeros((len(speakers), size), dtype=np.float32)
        rows = connection.execute("SELECT speaker, embedding FROM utterance ORDER BY speaker")
        while some := rows.fetchmany(_ROWS_PER_READ):
            if any(len(blob) != 4 * size for _, blob in some):
                raise ValueError(f"{self._file.path}: is damaged, an embedding has not the size {size}")
            vectors = np.frombuffer(b"".join([blob for _, blob in some]), dtype="<f4").reshape(-1, size)
            places, starts = np.unique(
                np.searchsorted(ids, [number for number, _ in some]), return_index=True
            )
            try:
                sums[places] += np.add.reduceat(unit_length(vectors), starts, axis=0)
            except ValueError as error:
                raise ValueError(f"{self._file.path}: is damaged: {error}") from error
        norms = np.sqrt(np.einsum("nd,nd->n", sums, sums))[:, None]
        # Utterances that cancel out point nowhere, and score 0.
        sums /= np.where(norms > 1e-6, norms, 1)
        return [name for _, name in speakers], sums


def _check_enrolment(name: str, embeddings, seconds: Sequence[float], files: Sequence[str] | None) -> tuple:
    name, vectors = check_name(name), np.asarray(embeddings, dtype=np.float32)
    unit_length(vectors)  # refuses what has no direction
    seconds, files = list(seconds), [""] * len(vectors) if files is None else list(map(str, files))
    if not len(vectors) == len(seconds) == len(files) or not files:
        raise ValueError(
            f"'{name}' has {len(vectors)} embeddings, {len(seconds)} lengths and {len(files)} files: expected as many "
            "of each, at least one"
        )
    return name, vectors, seconds, files


def _add(
    connection: sqlite3.Connection, name: str, vectors, seconds, files, now: str, replace: bool, label: str
) -> int:
    have: set[bytes] = set()
    inserted = connection.execute("INSERT OR IGNORE INTO speaker (name) VALUES (?)", (name,))
    if inserted.rowcount:
        speaker = inserted.lastrowid
    else:
        (speaker,) = connection.execute("SELECT id FROM speaker WHERE name = ?", (name,)).fetchone()
        if replace:
            connection.execute("DELETE FROM utterance WHERE speaker = ?", (speaker,))
        rows = connection.execute("SELECT embedding FROM utterance WHERE speaker = ?", (speaker,))
        have = {blob for (blob,) in rows}
    added = {}
    for vector, length, file in zip(vectors, seconds, files, strict=True):
        blob = vector.astype("<f4").tobytes()
        if blob not in have:
            added.setdefault(blob, (speaker, blob, float(length), _as_text(file), now, label))
    connection.executemany(
        "INSERT INTO utterance (speaker, embedding, seconds, file, enrolled, label) VALUES (?, ?, ?, ?, ?, ?)",
        added.values(),
    )
    return len(added)


def _as_text(path: str) -> str:
    # A name of a file may hold bytes that are no text.
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
