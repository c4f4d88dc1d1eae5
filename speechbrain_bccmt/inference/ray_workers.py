"""Embedding on the machines of a Ray cluster, by Ray Data."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Sequence

import numpy as np


def results_of_ray(
    address: str, paths: Sequence[str], task: int, workers: int, options: tuple[str, str, str, bool]
) -> Iterator[tuple[str, object]]:
    """Embed recordings on a cluster.

    Ray restarts a worker that died, on another machine if needed, and gives it its recordings again.

    Parameters
    ----------
    address : str
        Address of the cluster; "auto" finds the one that this machine belongs to, "local" starts one on it.
    paths : sequence of str
        The recordings, at paths that are valid on every machine.
    task : int
        Recordings given to a worker at once.
    workers : int
        Number of processes, with one core each.
    options : tuple
        Source of the model, valid on every machine; engine; device; and whether to embed only speech.

    Yields
    ------
    tuple
        Path and `Result` of a recording, each once, in any order.

    Raises
    ------
    ImportError
        If Ray is not installed.
    OSError
        If there is no such cluster, or it failed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"--ray needs Ray: pip install 'speechbrain_bccmt[ray]' ({error})") from error
    try:
        host, colon, port = address.rpartition(":")
        if colon and port.isdecimal():  # Ray itself takes minutes to report a missing one
            socket.create_connection((host, int(port)), timeout=10).close()
        if not ray.is_initialized():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise OSError(f"--ray {address}: no Ray cluster can be reached there: {_first_line(error)}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = -(-len(paths) // task)
    data = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=blocks)
    embedded = data.map_batches(
        Worker, fn_constructor_args=options, batch_size=task, concurrency=min(workers, blocks), num_cpus=1
    )
    try:
        for row in embedded.iter_rows():
            yield pickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        raise ChildProcessError(
            f"the work on Ray failed: {_first_line(error)}: started again, it goes on from here"
        ) from error


class Worker:
    """A process of the cluster: loads the model once, and embeds batches of paths."""

    def __init__(self, source: str, engine: str, device: str, vad: bool):
        from speechbrain_bccmt.inference.archive import Embedder
        from speechbrain_bccmt.inference.loading import load_verifier

        os.environ["OMP_NUM_THREADS"] = "1"
        self.embedder = Embedder(load_verifier(source, engine, device, vad))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the results, pickled: Arrow has no column for them."""
        results = self.embedder([str(path) for path in batch["path"]])
        return {"result": np.array([pickle.dumps(result) for result in results], dtype=object)}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
