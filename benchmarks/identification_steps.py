#!/usr/bin/env python3
"""The steps that `identification.py` measures, each in a process of its own: prints what it measured as JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path

import numpy as np
from peak_memory import peak_megabytes
from simulated_speakers import N_BEST, NAMES_PER_CHUNK, SIZE, Population, chunks, exact_best
from threadpoolctl import threadpool_limits

from speechbrain_bccmt.scoring.vectors import unit_length
from speechbrain_bccmt.voiceprints import postgres
from speechbrain_bccmt.voiceprints.store import Voiceprints

FINGERPRINT = "0123456789abcdef"


def server_usage(folder: Path | None) -> tuple[float, float]:
    """Return processor seconds and megabytes of all processes of a folder's server, or (0, 0) without one."""
    if folder is None or not (folder / "postmaster.pid").is_file():
        return 0.0, 0.0
    import psutil

    leader = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
    seconds = memory = 0.0
    for process in [leader, *leader.children()]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # The leader accounts for processes that have ended, such as parallel workers.
            seconds += times.user + times.system
            seconds += (times.children_user + times.children_system) if process is leader else 0
            memory += process.memory_full_info().pss / 2**20
    return seconds, memory


class Timer:
    """Context manager for wall-clock and processor seconds, including the server's."""

    def __init__(self, server: Path | None = None):
        self.server = server

    def __enter__(self):
        self.cpu = server_usage(self.server)[0] + time.process_time()
        self.wall = time.perf_counter()
        return self

    def __exit__(self, *error):
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu + server_usage(self.server)[0]

    @property
    def both(self) -> list[float]:
        """Return wall-clock and processor seconds."""
        return [self.wall, self.cpu]


def write_store(options: argparse.Namespace) -> dict:
    """Enrol the names; return the seconds it took."""
    population, names = Population(options.like), options.names
    prints = Voiceprints(options.store, FINGERPRINT)
    by_copy = "://" in options.store and names > options.copy_above
    making = np.zeros(2)
    with Timer(options.server) as timer:
        for first, number in chunks(names):
            with Timer() as simulation:
                embeddings = population.recordings(first, number, 0)
            making += simulation.both
            if by_copy:
                copy(prints, first, embeddings)
                continue
            prints.enroll_many(
                (f"name {first + i}", row[None], [3.0], None) for i, row in enumerate(embeddings)
            )
    return {"enrolment_s": (np.array(timer.both) - making).tolist(), "by_copy": by_copy}


def copy(prints: Voiceprints, first: int, embeddings: np.ndarray) -> None:
    """Write the same as `Voiceprints`, without checking existing entries."""
    if first == 0:  # creates the store
        prints.enroll("first", embeddings[:1], [3.0])
        prints.delete("first")
        prints.enroll("first", embeddings[:1], [3.0])
    from pgvector.psycopg import register_vector

    ids, units = range(first + 1000, first + 1000 + len(embeddings)), unit_length(embeddings)
    tables = {
        "speaker (id, name)": (["int8", "text"], ((i, f"name {first + n}") for n, i in enumerate(ids))),
        "utterance (id, speaker, embedding, seconds, file, enrolled, label)": (
            ["int8", "int8", "bytea", "float8", "text", "text", "text"],
            (
                (i, i, row.tobytes(), 3.0, "", "2026-01-01", "")
                for i, row in zip(ids, embeddings, strict=True)
            ),
        ),
        "direction (speaker, unit)": (["int8", "vector"], zip(ids, units, strict=True)),
    }
    with prints._database.writing(SIZE) as connection:
        if first == 0:
            connection.execute("DELETE FROM utterance")
            connection.execute("DELETE FROM speaker")
        register_vector(connection.raw)
        for table, (types, rows) in tables.items():
            with connection.raw.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as target:
                target.set_types(types)
                for row in rows:
                    target.write_row(row)


def multiply(options: argparse.Namespace) -> dict:
    """Copy all names inside the database; in PostgreSQL without their utterances, which no search reads."""
    server = "://" in options.store
    with Voiceprints(options.store, FINGERPRINT)._database.writing(SIZE) as connection:
        (last,) = connection.execute("SELECT max(id) FROM speaker").fetchone()
        for number in range(1, options.copies):
            new, given = number * (last + 1), "OVERRIDING SYSTEM VALUE" if server else ""
            connection.execute(
                f"INSERT INTO speaker (id, name) {given} SELECT id + {new}, name || ' copy {number}' FROM speaker "
                f"WHERE id <= {last}"
            )
            table = "direction" if server else "utterance"
            columns = "unit" if server else "embedding, seconds, file, enrolled, label"
            connection.execute(
                f"INSERT INTO {table} (speaker, {columns}) SELECT speaker + {new}, {columns} FROM {table} "
                f"WHERE speaker <= {last}"
            )
    return {}


def index_store(options: argparse.Namespace) -> dict:
    """Build the index; return the seconds it took."""
    with Timer(options.server) as timer:
        Voiceprints(options.store, FINGERPRINT).build_index(options.memory)
    return {"index_s": timer.both}


def search_store(options: argparse.Namespace) -> dict:
    """Search for probes; return seconds, recall and memory."""
    population, names, repeats = Population(options.like), options.names, options.repeats
    known = population.recordings(0, min(names, NAMES_PER_CHUNK), 1)[: repeats + 1]
    best = np.load(options.best)
    if options.near:
        postgres._LOOKED_AT = options.near
    prints = Voiceprints(options.store, FINGERPRINT)
    with contextlib.suppress(OSError):  # Linux: resets the peak
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_megabytes()

    def timed(embeddings):
        with Timer(options.server) as timer:
            found = prints.identify(embeddings, 0.5, N_BEST)
        return timer.both, found

    first, _ = timed(known[-1:])
    times, recall, found_best, right = [], 0.0, 0, 0
    for i in range(repeats):
        seconds, (found,) = timed(known[i : i + 1])
        times.append(seconds)
        expected = [f"name {place}" for place in best[i]]
        given = [candidate.name for candidate in found.candidates]
        recall += len(set(expected) & set(given)) / len(expected)
        found_best += given[:1] == expected[:1]
        right += given[:1] == [f"name {i}"]
    ten, _ = timed(known[:10])
    columns = list(zip(*times, strict=True))
    return {
        "first_search_s": first,
        "search_ms": [1000 * statistics.median(column) for column in columns],
        "slowest_search_ms": [1000 * max(column) for column in columns],
        "ten_probes_ms": [1000 * seconds for seconds in ten],
        "recall_best": found_best / repeats,
        "recall_ten": recall / repeats,
        "right": right / repeats,
        "memory_mb": peak_megabytes() - before + server_usage(options.server)[1],
    }


def compute_best(options: argparse.Namespace) -> dict:
    """Write the best names of the exact product to a file."""
    population, names = Population(options.like), options.names
    known = population.recordings(0, min(names, NAMES_PER_CHUNK), 1)[: options.repeats]
    np.save(options.best, exact_best(population, names, unit_length(known)))
    return {}


STEPS = {
    "best": compute_best,
    "write": write_store,
    "multiply": multiply,
    "index": index_store,
    "search": search_store,
}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--store", help="file or URL")
    parser.add_argument("--names", type=int)
    parser.add_argument("--best", type=Path, help="file of the best names of the exact product")
    parser.add_argument("--server", type=Path, help="folder of the server whose processes count as well")
    parser.add_argument("--near", type=int)
    parser.add_argument("--like", type=Path)
    for name in ("--threads", "--repeats", "--memory", "--copy-above", "--copies"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    with threadpool_limits(options.threads):
        print(json.dumps(STEPS[options.step](options)))


if __name__ == "__main__":
    main()
