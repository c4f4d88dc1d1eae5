"""Embedding files, from `bccmt embed` or any other program: an array, and an id for each row."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from speechbrain_bccmt.trials.trial_list import utterance_id


@dataclass(frozen=True)
class Embeddings:
    """Embeddings by id.

    Attributes
    ----------
    ids : list of str
        (N,), without repeats.
    vectors : numpy.ndarray
        (N, D), float32.
    seconds : numpy.ndarray or None
        Duration of each utterance, (N,), if the file has it.
    """

    ids: list[str]
    vectors: np.ndarray
    seconds: np.ndarray | None

    @cached_property
    def _rows(self) -> dict[str, int]:
        # Trial lists are read without file extensions, but files are embedded with them.
        place = {utterance_id(name): row for row, name in enumerate(self.ids)}
        if len(place) < len(self.ids):  # some differ only in their extension
            place = {}
        return place | {name: row for row, name in enumerate(self.ids)}

    def rows_of(self, ids: list[str]) -> np.ndarray:
        """Return the row of each of these ids, with or without extension; ValueError names those that are missing."""
        place = self._rows
        if missing := [name for name in ids if name not in place]:
            raise ValueError(
                f"{len(missing)} of {len(ids)} utterances have no embedding, such as {missing[0]}; "
                f"an id that has one is {self.ids[0]}"
            )
        return np.array([place[name] for name in ids], dtype=np.int64)


def read_embeddings(path: str | Path) -> Embeddings:
    """Read an embedding file.

    Parameters
    ----------
    path : str or Path
        An .npz file with the arrays `ids` (N,) and `embeddings` (N, D), and `seconds` (N,) if known; or a
        .safetensors file with `embeddings` and `seconds`, and the ids as a JSON list under `ids` in its metadata.

    Returns
    -------
    Embeddings
        Its contents.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of another type, is damaged, lacks an array or repeats an id, or if shapes do not match.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "embeddings.npz"
    >>> np.savez(path, ids=["a", "b"], embeddings=np.eye(2))
    >>> read_embeddings(path).rows_of(["b"]).tolist()
    [1]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no embedding file at {path}")
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: embeddings are read from {' or '.join(readers)}, not from '{path.suffix}'")
    ids, vectors, seconds = readers[path.suffix.lower()](path)
    if vectors.ndim != 2 or len(ids) != len(vectors) or not len(ids):
        raise ValueError(
            f"{path}: {len(ids)} ids and embeddings of shape {vectors.shape}, expected (ids, size)"
        )
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: {len(ids) - len(set(ids))} ids occur more than once")
    if seconds is not None and seconds.shape != (len(ids),):
        raise ValueError(f"{path}: seconds have shape {seconds.shape}, expected ({len(ids)},)")
    return Embeddings(ids, np.asarray(vectors, dtype=np.float32), seconds)


def _read_npz(path: Path) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    try:
        # No pickles: a file of embeddings must not be able to run code.
        with np.load(path, allow_pickle=False) as arrays:
            ids, vectors = [str(name) for name in arrays["ids"]], arrays["embeddings"]
            return ids, vectors, arrays["seconds"] if "seconds" in arrays else None
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}; expected the arrays ids and embeddings") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no usable .npz file: {error}") from error


def _read_safetensors(path: Path) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            listed = (file.metadata() or {}).get("ids")
            if listed is None or "embeddings" not in names:
                raise ValueError("expected the tensor embeddings, and ids in the metadata")
            seconds = file.get_tensor("seconds") if "seconds" in names else None
            return [str(name) for name in json.loads(listed)], file.get_tensor("embeddings"), seconds
    except (ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"{path} is no usable .safetensors file of embeddings: {error}") from error
