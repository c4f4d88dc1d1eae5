"""Embeddings of an archive of recordings: computed by several processes, stored as they finish, never twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path

import numpy as np

from speechbrain_bccmt.audio.recording import MAX_CHUNK_SECONDS
from speechbrain_bccmt.inference.chunk_mean import measure_band
from speechbrain_bccmt.inference.embedding_store import (
    EmbeddingStore,
    ShardWriter,
    batches_by_length,
    utterance_key,
)
from speechbrain_bccmt.inference.loading import load_verifier
from speechbrain_bccmt.inference.ray_workers import results_of_ray
from speechbrain_bccmt.inference.results import EmbeddedUtterance
from speechbrain_bccmt.inference.verifier import Verifier

# Recordings given to a worker at once, of similar size.
TASK = 16
BATCH_SECONDS = 80.0

Result = EmbeddedUtterance | OSError | ValueError


class Archive:
    """The embeddings of many recordings by one model, in a folder; see `EmbeddingStore` for its contents.

    Parameters
    ----------
    folder : str or Path
        Folder of the store. Several programs may write to it at once.
    model : Verifier
        The model, see `load_verifier`.
    jobs : int
        Number of processes that embed, with one thread each; 1 is this process, with the model's threads. Other
        processes load the model from the same source.
    ray : str or None
        Address of a Ray cluster whose machines do the work, see `results_of_ray`.

    Examples
    --------
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", np.random.randn(16000) / 10, 16000)
    >>> paths = {str(folder / "a.wav"): "a"}
    >>> archive = Archive(folder / "kept", load_verifier("tiny"))
    >>> len(archive.missing(paths)), [result.seconds for _, result in archive.embed(paths)]
    (1, [1.0])
    >>> len(archive.missing(paths)), list(archive.embed(paths)), archive.read(paths)[1].shape
    (0, [], (1, 192))
    """

    def __init__(self, folder: str | Path, model: Verifier, jobs: int = 1, ray: str | None = None):
        self.ray, self.jobs = ray, jobs
        self.options = (model.source, model.engine, str(model.device), model.vad)
        # Embeddings of speech alone differ from those of whole recordings.
        self.store = EmbeddingStore(folder, model.fingerprint + ("-speech" if model.vad else ""))
        self.embedder = Embedder(model) if jobs == 1 and ray is None else None

    def missing(self, paths: Mapping[str, str]) -> dict[str, int]:
        """Return the size in bytes of each recording that is not in the archive; 0 if there is no such file."""
        keys, failed = _keys(paths)
        return dict.fromkeys(failed, 0) | {
            path: _size(key) for path, key in keys.items() if key not in self.store
        }

    def embed(self, paths: Mapping[str, str]) -> Iterator[tuple[str, Result]]:
        """Embed the recordings that are not in the archive, large files first, and store the embeddings.

        They are written to disk once a minute and at the end, whatever ends the run.

        Parameters
        ----------
        paths : mapping of str to str
            Path to id.

        Yields
        ------
        path : str
            Path of a recording.
        result : EmbeddedUtterance, OSError or ValueError
            Its result. A recording that cannot be used is not stored, and is tried again the next time.

        Raises
        ------
        OSError
            If the folder cannot be written to, or a worker process died.
        """
        keys, failed = _keys(paths)
        yield from failed.items()
        # A file with two names is embedded once.
        todo = {key: path for path, key in keys.items() if key not in self.store}
        order = sorted(todo.values(), key=lambda path: _size(keys[path]), reverse=True)
        position = {path: row for row, path in enumerate(order)}
        writer = ShardWriter(self.store, [paths[path] for path in order], [keys[path] for path in order])
        try:
            for path, result in self._results(order):
                if isinstance(result, EmbeddedUtterance):
                    lengths = [(result.seconds, result.speech_seconds)]
                    writer.take([position[path]], result.embedding[None], lengths)
                yield path, result
        finally:
            writer.write()

    def read(self, paths: Mapping[str, str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Return the paths that are in the archive, their embeddings (N, D), float32, and lengths (N, 2).

        Lengths are seconds of a recording and of the speech in it; NaN if an earlier version stored none.
        """
        kept = {path: key for path, key in _keys(paths)[0].items() if key in self.store}
        keys = list(kept.values())
        return list(kept), self.store.read(keys), self.store.read_lengths(keys)

    def _results(self, paths: list[str]) -> Iterator[tuple[str, Result]]:
        tasks = [paths[start : start + TASK] for start in range(0, len(paths), TASK)]
        if self.embedder is not None:
            for task in tasks:
                yield from self.embedder(task)
            return
        workers = min(self.jobs, len(tasks))
        if not workers:
            return
        if self.ray is not None:
            yield from results_of_ray(self.ray, paths, TASK, self.jobs, self.options)
            return
        pool = ProcessPoolExecutor(workers, _context(), _begin, self.options)
        pending = set()
        try:
            for task in tasks:
                pending.add(pool.submit(_embed, task))
                if len(pending) > 2 * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            for future in pending:
                yield from future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process died, perhaps for lack of memory: started again with fewer jobs, it goes on from here"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


class Embedder:
    """Embeds lists of recordings in one process: one by one with a graph, in batches of similar length with PyTorch.

    Parameters
    ----------
    model : Verifier
        The model.
    """

    def __init__(self, model: Verifier):
        self.model = model

    def __call__(self, paths: list[str]) -> list[tuple[str, Result]]:
        """Return the results in the order of the recordings."""
        found = self._in_batches(paths) if self.model.in_batches else {}
        results = []
        for path in paths:
            try:
                results.append((path, found[path] if path in found else self.model.embed_file(path)))
            except (OSError, ValueError) as error:
                results.append((path, error))
        return results

    def _in_batches(self, paths: list[str]) -> dict[str, EmbeddedUtterance]:
        """Embed sound recordings of one chunk; the rest is left to `embed_file`, which says what is wrong with it."""
        model, chunks = self.model, {}
        for path in paths:
            try:
                recording = model.open_recording(path)
                if recording.seconds <= MAX_CHUNK_SECONDS:
                    (chunks[path],) = model.read_chunks(recording, model.vad)
            except (OSError, ValueError):
                continue
        found = {}
        rows = [{"ID": path, "duration": len(chunk.wav) / model.sample_rate} for path, chunk in chunks.items()]
        for batch in batches_by_length(rows, BATCH_SECONDS):
            names = [rows[index]["ID"] for index in batch]
            vectors = model.embed_waveforms([chunks[name].wav for name in names])
            for name, vector in zip(names, vectors, strict=True):
                if np.isfinite(vector).all():
                    chunk = measure_band(chunks[name], model.sample_rate)
                    found[name] = EmbeddedUtterance.from_chunks(name, vector, [chunk], model.vad)
        return found


_embedder: Embedder | None = None  # of a worker process


def _context() -> multiprocessing.context.BaseContext:
    """Return how workers start: where possible, from one process that has already imported everything."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _begin(source: str, engine: str, device: str, vad: bool) -> None:
    """Set up a worker process, which ends with its parent even if the parent is killed."""
    global _embedder

    def end_with_parent():
        wait_for([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.environ["OMP_NUM_THREADS"] = "1"
    if engine == "torch":
        import torch

        torch.set_num_threads(1)
    _embedder = Embedder(load_verifier(source, engine, device, vad))


def _embed(paths: list[str]) -> list[tuple[str, Result]]:
    return _embedder(paths)


def _keys(paths: Mapping[str, str]) -> tuple[dict[str, tuple], dict[str, OSError]]:
    keys, failed = {}, {}
    for path, name in paths.items():
        try:
            keys[path] = utterance_key({"ID": name, "wav": path})
        except OSError as error:
            failed[path] = error
    return keys, failed


def _size(key: tuple) -> int:
    return key[3]
