"""Embeddings kept on disk: computed once, and read by every later scoring run."""

from __future__ import annotations

import csv
import logging
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speechbrain_bccmt.files import temporary_sibling

logger = logging.getLogger(__name__)

COLUMNS = ("ID", "wav", "start", "stop", "size", "mtime_ns")
# Further columns, empty if not known. Shards of earlier versions lack them.
LENGTHS = ("seconds", "speech_seconds")
# Embeddings are written to disk at least this often, in seconds: a kill loses no more than that.
KEEP_EVERY = 60.0


class EmbeddingStore:
    """Embeddings of one model in a folder, which only ever gains files.

    `<folder>/<fingerprint>/<shard>.npy` holds embeddings, (N, D) float32; `<shard>.csv` beside it says for each row
    which stretch of which file it embeds, that file's size and modification time, and how long it is. So neither a
    changed model nor a changed recording finds an old embedding, and several models can share a folder. Each shard
    appears whole or not at all, the csv last; several runs may add to a folder at once. A damaged shard counts as
    absent.

    Parameters
    ----------
    folder : str or Path
        Created with the first shard.
    fingerprint : str
        The model's, see `speechbrain_bccmt.inference.fingerprint`.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.wav").write_bytes(b"a recording")
    >>> key = utterance_key({"ID": "a", "wav": str(folder / "a.wav")})
    >>> EmbeddingStore(folder / "embeddings", "0123456789abcdef").add(["a"], [key], np.ones((1, 2), np.float32))
    >>> store = EmbeddingStore(folder / "embeddings", "0123456789abcdef")
    >>> key in store, store.read([key]).tolist()
    (True, [[1.0, 1.0]])
    >>> key in EmbeddingStore(folder / "embeddings", "another model")
    False
    """

    def __init__(self, folder: str | Path, fingerprint: str):
        self.folder = Path(folder) / fingerprint
        self._shards: list[Path] = []
        self._size = 0
        self._rows: dict[tuple, tuple[int, int]] = {}
        self._lengths: list[np.ndarray] = []
        for index in sorted(self.folder.glob("[!.]*.csv")):
            try:
                self._open_shard(index)
            except (OSError, ValueError, TypeError, EOFError, csv.Error) as error:
                logger.warning(f"the embeddings of {index} cannot be used and are computed again: {error}")

    def __contains__(self, key: tuple) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        ids: Sequence[str],
        keys: Sequence[tuple],
        embeddings: np.ndarray,
        lengths: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        """Store embeddings as one shard.

        Parameters
        ----------
        ids : sequence of str
            The utterances' ids, for human readers of the csv.
        keys : sequence of tuple
            Source of each embedding, see `utterance_key`, taken before the audio was read.
        embeddings : numpy.ndarray
            (N, D).
        lengths : sequence of tuple or None
            Seconds of each recording and of the speech in it; None if not known.

        Raises
        ------
        OSError
            If the shard cannot be written.
        """
        stem = uuid.uuid4().hex
        with temporary_sibling(self.folder / f"{stem}.npy") as temporary:
            with open(temporary, "wb") as file:
                np.save(file, np.asarray(embeddings, dtype=np.float32))
                _flush(file)
            temporary.replace(self.folder / f"{stem}.npy")
        index = self.folder / f"{stem}.csv"
        with temporary_sibling(index) as temporary:
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS if lengths is None else COLUMNS + LENGTHS)
                known = [()] * len(keys) if lengths is None else [map(_digits, pair) for pair in lengths]
                writer.writerows((name, *key, *pair) for name, key, pair in zip(ids, keys, known, strict=True))
                _flush(file)
            temporary.replace(index)
        self._open_shard(index)

    def read(self, keys: Sequence[tuple]) -> np.ndarray:
        """Read embeddings; the shards are memory-mapped, so only the requested rows take memory.

        Parameters
        ----------
        keys : sequence of tuple
            See `utterance_key`; each must be in the store.

        Returns
        -------
        numpy.ndarray
            (N, D), float32, in the order of `keys`.

        Raises
        ------
        KeyError
            If an utterance is not in the store.
        """
        places = np.array([self._rows[key] for key in keys], dtype=np.intp).reshape(-1, 2)
        embeddings = np.empty((len(keys), self._size), dtype=np.float32)
        for shard in np.unique(places[:, 0]):
            wanted = np.flatnonzero(places[:, 0] == shard)
            # Mapped only briefly: each mapping holds a file open, and there may be thousands of shards.
            embeddings[wanted] = np.load(self._shards[shard], mmap_mode="r")[places[wanted, 1]]
        return embeddings

    def read_lengths(self, keys: Sequence[tuple]) -> np.ndarray:
        """Read the seconds of recordings and of the speech in them, (N, 2); NaN if they were not stored."""
        places = [self._rows[key] for key in keys]
        return np.array([self._lengths[shard][row] for shard, row in places]).reshape(-1, 2)

    def _open_shard(self, index: Path) -> None:
        with open(index, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) not in (COLUMNS, COLUMNS + LENGTHS):
                raise ValueError(f"its columns are not {', '.join(COLUMNS + LENGTHS)}")
            rows = list(reader)
        keys = [_key(*row[1 : len(COLUMNS)]) for row in rows]
        lengths = np.array(
            [[float(value or "nan") for value in row[len(COLUMNS) :] or ("", "")] for row in rows]
        ).reshape(len(keys), 2)
        path = index.with_suffix(".npy")
        embeddings = np.load(path, mmap_mode="r")
        size = self._size or (embeddings.shape[1] if embeddings.ndim == 2 else 0)
        if embeddings.dtype != np.float32 or embeddings.shape != (len(keys), size):
            raise ValueError(
                f"{path.name} has shape {embeddings.shape} and type {embeddings.dtype}, "
                f"expected float32 {(len(keys), size)}"
            )
        self._size = size
        self._rows.update((key, (len(self._shards), row)) for row, key in enumerate(keys))
        self._shards.append(path)
        self._lengths.append(lengths)


def utterance_key(row: dict) -> tuple[str, int, int, int, int]:
    """Return what identifies the source of an embedding: a stretch of a file in its current state.

    Parameters
    ----------
    row : dict
        Row of a CSV of utterances: `ID` and `wav`, optionally `start` and `stop` in samples.

    Returns
    -------
    tuple
        Absolute path, start, stop (-1 is the end of the file), the file's size in bytes and modification time in ns.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    try:
        status = os.stat(row["wav"])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"utterance '{row['ID']}': there is no file {row['wav']}") from error
    return _key(
        os.path.abspath(row["wav"]),
        row.get("start") or 0,
        row.get("stop") or -1,
        status.st_size,
        status.st_mtime_ns,
    )


def batches_by_length(rows: list[dict], batch_seconds: float) -> list[list[int]]:
    """Group rows by length, longest first: if memory is too small, this shows at once."""
    durations = [float(row["duration"]) for row in rows]
    batches: list[list[int]] = []
    for index in sorted(range(len(rows)), key=durations.__getitem__, reverse=True):
        # The first of a batch is the longest, to which the others are padded.
        if batches and durations[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class ShardWriter:
    """Collects the embeddings of batches until it is time to write them.

    Parameters
    ----------
    store : EmbeddingStore
        Where they are written.
    ids, keys : sequence of str, sequence of tuple
        Those of the utterances, see `EmbeddingStore.add`.
    """

    def __init__(self, store: EmbeddingStore, ids: list[str], keys: list[tuple]):
        self.store, self.ids, self.keys = store, ids, keys
        self._begin()

    def _begin(self) -> None:
        self.taken, self.vectors, self.lengths, self.begun = [], [], [], time.monotonic()

    def take(
        self, batch: list[int], vectors: np.ndarray, lengths: Sequence[tuple[float, float]] | None = None
    ) -> None:
        """Add embeddings (N, D), and `lengths` as in `EmbeddingStore.add`, of the utterances at these positions.

        A shard is written once a minute.
        """
        self.taken += batch
        self.lengths += lengths or [(np.nan, np.nan)] * len(batch)
        self.vectors.append(vectors)
        if time.monotonic() - self.begun > KEEP_EVERY:
            self.write()

    def write(self) -> None:
        """Write what has been added since the last shard."""
        if self.taken:
            ids, keys = ([values[index] for index in self.taken] for values in (self.ids, self.keys))
            self.store.add(ids, keys, np.concatenate(self.vectors), self.lengths)
        self._begin()


def _key(path: str, start, stop, size, mtime_ns) -> tuple[str, int, int, int, int]:
    return path, int(start), int(stop), int(size), int(mtime_ns)


def _digits(seconds: float) -> str:
    return "" if np.isnan(seconds) else f"{seconds:.9g}"


def _flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())
