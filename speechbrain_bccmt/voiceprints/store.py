"""Voiceprints: enrolled speakers by name in a database, and the search for who is talking.

Axes: n names, u utterances, d size of an embedding, p probes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from speechbrain_bccmt.scoring.vectors import unit_length
from speechbrain_bccmt.voiceprints.database import CHUNK, open_database, sum_directions, unit_directions
from speechbrain_bccmt.voiceprints.names import check_label, check_name
from speechbrain_bccmt.voiceprints.records import (
    Candidate,
    EnrolledSpeaker,
    EnrolledUtterance,
    Identification,
    Reference,
)

_ROWS_PER_READ = 16384


class Voiceprints:
    """Voiceprints of one model in a database: an SQLite file, or PostgreSQL with pgvector.

    A name has one utterance or several; its score is the cosine of the probe with the mean of their embeddings, each
    of unit length. Every write is one transaction: a kill or a full disk leaves the store as it was before. Several
    processes may read and write it at once. With a file, the mean directions of all names stay in memory after the
    first search, 4 n d bytes, until the file changes; a server does the search itself.

    Parameters
    ----------
    place : str or Path
        The file, created by the first enrolment, or `postgresql://user@host/database`, see `voiceprints.postgres`.
    fingerprint : str or None
        The model's, see `inference.fingerprint`; prints of another model are refused. None: prints can only be
        listed, exported and deleted.
    source : str
        Where the model is, for messages.

    Raises
    ------
    OSError, ValueError
        By every method: if the store cannot be read, is not a store, is damaged, or holds prints of another model. It
        is left unchanged.

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

    def __init__(self, place: str | Path, fingerprint: str | None = None, source: str = ""):
        self.fingerprint = fingerprint
        self._database = open_database(place, fingerprint, source)

    def exists(self) -> bool:
        """Return whether anybody has ever been enrolled there."""
        return self._database.exists()

    def check(self) -> None:
        """Raise what any other method would if the store is missing, damaged, not a store or of another model."""
        with self._database.reading():
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
            Any text of one line; leading and trailing spaces do not count.
        embeddings : array_like
            One for each utterance, (u, d).
        seconds : sequence of float
            Length of each utterance.
        files : sequence of str or None
            Where each came from, for human readers of the store.
        replace : bool
            Delete the utterances that the name has so far.
        label : str
            How they were recorded, such as headset, phone or room.

        Returns
        -------
        int
            How many utterances were added; one that the name already has, bit for bit, does not count twice.
        """
        return self.enroll_many([(name, embeddings, seconds, files)], replace, label)

    def enroll_many(self, speakers: Iterable[tuple], replace: bool = False, label: str = "") -> int:
        """Enrol many speakers in one transaction: all, or none if one is refused.

        Parameters
        ----------
        speakers : iterable of tuple
            `name`, `embeddings`, `seconds` and `files` of each, as for `enroll`.
        replace : bool
            Delete the utterances that these names have so far.
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
        return self.add(
            (
                EnrolledUtterance(checked, vector, length, file, label=label)
                for name, embeddings, seconds, files in speakers
                for checked, vector, length, file in _check_enrolment(name, embeddings, seconds, files)
            ),
            replace,
        )

    def add(self, utterances: Iterable[EnrolledUtterance], replace: bool = False) -> int:
        """Add utterances, such as those of another store, in one transaction: all, or none if one is refused.

        Parameters
        ----------
        utterances : iterable of EnrolledUtterance
            Those without a time of enrolment are enrolled now.
        replace : bool
            Delete the utterances that these names have so far.

        Returns
        -------
        int
            How many were added; one that the name already has, bit for bit, does not count twice.
        """
        if self.fingerprint is None:
            raise ValueError("to enrol speakers, the fingerprint of the model is needed")
        # Checked before the store is opened: a slow caller keeps nobody waiting, and mistakes create no store.
        speakers: dict[str, list[EnrolledUtterance]] = {}
        for utterance in utterances:
            speakers.setdefault(check_name(utterance.name), []).append(utterance)
        sizes = sorted({len(one.embedding) for several in speakers.values() for one in several})
        if len(sizes) != 1:
            raise ValueError(
                f"embeddings have sizes {sizes}, expected one" if sizes else "there is nobody to enrol"
            )
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        names = list(speakers)
        with self._database.writing(sizes[0], create=True) as connection:
            chunks = (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
            return sum(
                self._add(connection, {name: speakers[name] for name in chunk}, now, replace)
                for chunk in chunks
            )

    def delete(self, name: str) -> int:
        """Delete a speaker. In a file the embeddings are overwritten at once; for a server, see `purge`.

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
        with self._database.writing() as connection:
            speaker = connection.execute("SELECT id FROM speaker WHERE name = ?", (name,)).fetchone()
            if speaker is None:
                raise ValueError(f"{self._database.place}: no speaker '{name}' is enrolled")
            number = connection.execute("DELETE FROM utterance WHERE speaker = ?", speaker).rowcount
            connection.execute("DELETE FROM speaker WHERE id = ?", speaker)
            return number

    def purge(self) -> None:
        """Rewrite what may still hold traces of deleted embeddings: the tables of a server, nothing of a file."""
        self._database.purge()

    def build_index(self, memory_mb: int = 1024) -> None:
        """Build an index of near prints, which makes the searches of a server faster and no longer exhaustive.

        Parameters
        ----------
        memory_mb : int
            What the server may use: about 1.5 GB for a million prints of 192 dimensions; less takes much longer.

        Raises
        ------
        ValueError
            If the store is a file, whose search is one product with all prints in memory.
        """
        self._database.build_index(memory_mb)

    def count(self) -> int:
        """Count the names."""
        with self._database.reading() as connection:
            return (
                0 if connection is None else connection.execute("SELECT count(*) FROM speaker").fetchone()[0]
            )

    def speakers(self) -> list[EnrolledSpeaker]:
        """List the enrolled speakers, by name."""
        with self._database.reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                "SELECT name, count(*), sum(seconds), min(enrolled), max(enrolled) "
                "FROM speaker JOIN utterance ON speaker = speaker.id GROUP BY speaker.id, name ORDER BY name"
            ).fetchall()
            labels = connection.execute(
                "SELECT DISTINCT name, label FROM speaker JOIN utterance ON speaker = speaker.id WHERE label <> ''"
            )
            labelled: dict[str, list[str]] = {}
            for name, label in labels:
                labelled.setdefault(name, []).append(label)
            return [EnrolledSpeaker(*row, tuple(sorted(labelled.get(row[0], ())))) for row in rows]

    def reference(self, name: str) -> Reference | None:
        """Return what is enrolled under a name, None if nothing is.

        Parameters
        ----------
        name : str
            As enrolled.
        """
        if self.fingerprint is None:
            raise ValueError("to compare voiceprints, the fingerprint of the model is needed")
        name = check_name(name)
        with self._database.reading() as connection:
            if connection is None:
                return None
            rows = connection.execute(
                "SELECT embedding, seconds, label, bandwidth FROM utterance "
                "WHERE speaker = (SELECT id FROM speaker WHERE name = ?) ORDER BY id",
                (name,),
            ).fetchall()
            if not rows:
                return None
            (size,) = connection.execute("SELECT size FROM model").fetchone()
        blobs, seconds, labels, bandwidths = zip(*rows, strict=True)
        if any(len(blob) != 4 * size for blob in blobs):
            raise ValueError(f"{self._database.place}: is damaged, an embedding has not the size {size}")
        vectors = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(-1, size)
        return Reference(name, vectors, np.array(seconds), labels, np.array(bandwidths, dtype=np.float64))

    def utterances(self) -> Iterator[EnrolledUtterance]:
        """Yield all utterances, grouped by speaker, from one consistent state of the store."""
        query = (
            "SELECT speaker, utterance.id, name, embedding, seconds, file, enrolled, label, bandwidth "
            "FROM utterance JOIN speaker ON speaker.id = speaker "
            "WHERE (speaker, utterance.id) > (?, ?) ORDER BY speaker, utterance.id LIMIT ?"
        )
        with self._database.reading() as connection:
            last = (0, 0)
            while connection is not None:
                rows = connection.execute(query, (*last, _ROWS_PER_READ)).fetchall()
                if not rows:
                    return
                for _, _, name, embedding, *rest, band in rows:
                    band = math.nan if band is None else band
                    yield EnrolledUtterance(name, np.frombuffer(embedding, dtype="<f4"), *rest, band)
                last = rows[-1][:2]

    def model(self) -> tuple[str, str] | None:
        """Return fingerprint and source of the prints' model; None if nobody is enrolled."""
        with self._database.reading() as connection:
            return connection and connection.execute("SELECT fingerprint, source FROM model").fetchone()

    def identify(self, embeddings, threshold: float, n_best: int = 5) -> list[Identification]:
        """Identify the enrolled speaker of each probe, or none of them.

        Parameters
        ----------
        embeddings : array_like
            One for each probe, (p, d).
        threshold : float
            The least cosine at which the best candidate is taken to be the speaker. A threshold calibrated on pairs
            of recordings lets a stranger pass more often the more names there are: see `identify_open_set`.
        n_best : int
            How many candidates to return.

        Returns
        -------
        list of Identification
            One for each probe.
        """
        if n_best < 1:
            raise ValueError(f"n_best is {n_best}, expected at least 1")
        if not np.isfinite(threshold):
            raise ValueError(f"threshold is {threshold}, expected a finite number")
        if self.fingerprint is None:
            raise ValueError("to identify speakers, the fingerprint of the model is needed")
        identified = []
        for best in self._database.search(unit_length(embeddings), max(2, n_best)):
            # Rounding may leave [-1, 1] by an ulp or two.
            candidates = tuple(Candidate(name, min(1.0, max(-1.0, score))) for name, score in best)
            speaker = candidates[0].name if candidates and candidates[0].score >= threshold else None
            margin = candidates[0].score - candidates[1].score if len(candidates) > 1 else math.inf
            identified.append(Identification(speaker, candidates[:n_best], margin, threshold))
        return identified

    def _add(self, connection, speakers: dict[str, list[EnrolledUtterance]], now: str, replace: bool) -> int:
        """Add utterances to a chunk of speakers, by name; return how many are new."""
        ids = _ids(connection, list(speakers))
        if replace:
            connection.execute(f"DELETE FROM utterance WHERE speaker IN ({_marks(ids)})", list(ids.values()))
        connection.executemany(
            "INSERT INTO speaker (name) VALUES (?)", [(name,) for name in speakers if name not in ids]
        )
        ids = _ids(connection, list(speakers))
        have: dict[int, set[bytes]] = {number: set() for number in ids.values()}
        rows = f"SELECT speaker, embedding FROM utterance WHERE speaker IN ({_marks(ids)})"
        for number, blob in connection.execute(rows, list(ids.values())):
            have[number].add(bytes(blob))
        new = []
        for name, utterances in speakers.items():
            number = ids[name]
            for one in utterances:
                blob = np.asarray(one.embedding, dtype="<f4").tobytes()
                if blob not in have[number]:
                    have[number].add(blob)
                    band = None if math.isnan(one.bandwidth) else float(one.bandwidth)
                    about = float(one.seconds), _as_text(one.file), one.enrolled or now, one.label, band
                    new.append((number, blob, *about))
        connection.executemany(
            "INSERT INTO utterance (speaker, embedding, seconds, file, enrolled, label, bandwidth) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            new,
        )
        self._database.keep_directions(connection, *_directions(have))
        return len(new)


def _directions(embeddings: dict[int, set[bytes]]) -> tuple[list[int], np.ndarray]:
    """Return ids and mean directions (n, d) of speakers from all their embeddings."""
    ids = sorted(embeddings)
    owners = [number for number in ids for _ in embeddings[number]]
    vectors = np.frombuffer(
        b"".join(blob for number in ids for blob in sorted(embeddings[number])), dtype="<f4"
    )
    return ids, unit_directions(sum_directions(np.array(ids), owners, vectors.reshape(len(owners), -1)))


def _ids(connection, names: list[str]) -> dict[str, int]:
    rows = connection.execute(f"SELECT name, id FROM speaker WHERE name IN ({_marks(names)})", names)
    return dict(rows.fetchall())


def _marks(values) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def _check_enrolment(
    name: str, embeddings, seconds: Sequence[float], files: Sequence[str] | None
) -> list[tuple]:
    name, vectors = check_name(name), np.asarray(embeddings, dtype=np.float32)
    unit_length(vectors)  # refuses what has no direction
    seconds, files = list(seconds), [""] * len(vectors) if files is None else list(map(str, files))
    if not len(vectors) == len(seconds) == len(files) or not files:
        raise ValueError(
            f"'{name}' has {len(vectors)} embeddings, {len(seconds)} lengths and {len(files)} files: expected as many "
            "of each, at least one"
        )
    return [(name, *one) for one in zip(vectors, seconds, files, strict=True)]


def _as_text(path: str) -> str:
    # A file name may hold bytes that are not text.
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
