#!/usr/bin/env python3
"""Time the search for a speaker among the voiceprints of a store, from ten thousand to a million names.

    python benchmarks/identification.py [--names 10000 100000 1000000] [--threads 1]

Names have one utterance each, a random embedding of 192 dimensions; probes are enrolled embeddings with noise, and
each must find its name, as strangers must find none. `first search` reads the store into memory, as it happens once in
a process and after each change; `search` is the median of those that follow. Memory is the peak of a process of its
own, less what it took before the first search. Times are wall-clock and, in brackets, of the processor, which depend
less on what else the machine does. Prints a table and writes results/identification/identification.json.
"""

from __future__ import annotations

import argparse
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

from speechbrain_bccmt.voiceprints.store import Voiceprints

SIZE, SEED, FINGERPRINT = 192, 1986, "0123456789abcdef"
NAMES_PER_WRITE = 50_000
THRESHOLD = 0.5


def voices(first: int, number: int) -> np.ndarray:
    """Return the embeddings of some names: (number, SIZE)."""
    return np.random.default_rng((SEED, first)).standard_normal((number, SIZE), dtype=np.float32)


class Timer:
    """Wall-clock and processor seconds of what is done inside."""

    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error):
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def write_store(path: str, names: int) -> None:
    """Enrol the names, and print the seconds it took."""
    prints = Voiceprints(path, FINGERPRINT)
    with Timer() as timer:
        for first in range(0, names, NAMES_PER_WRITE):
            embeddings = voices(first, min(NAMES_PER_WRITE, names - first))
            prints.enroll_many(
                (f"name {first + i}", row[None], [3.0], None) for i, row in enumerate(embeddings)
            )
    print(json.dumps({"enrolment_s": [timer.wall, timer.cpu]}))


def search_store(path: str, names: int, repeats: int) -> None:
    """Search for probes, and print seconds and memory."""
    generator = np.random.default_rng(SEED + 1)
    known = voices(0, min(names, NAMES_PER_WRITE))[: repeats + 1]
    probes = known + 0.3 * generator.standard_normal(known.shape, dtype=np.float32)
    strangers = generator.standard_normal((repeats, SIZE), dtype=np.float32)
    prints, before = Voiceprints(path, FINGERPRINT), peak_megabytes()

    def timed(embeddings, expected):
        with Timer() as timer:
            found = prints.identify(embeddings, THRESHOLD)
        if [identification.speaker for identification in found] != expected:
            raise SystemExit(f"error: expected {expected}, found {found}")
        return timer.wall, timer.cpu

    first = timed(probes[-1:], [f"name {repeats}"])
    search = [timed(probes[i : i + 1], [f"name {i}"]) for i in range(repeats)]
    search += [timed(strangers[i : i + 1], [None]) for i in range(repeats)]
    ten = timed(probes[:10], [f"name {i}" for i in range(10)])
    result = {
        "first_search_s": first,
        "search_ms": [1000 * statistics.median(column) for column in zip(*search, strict=True)],
        "slowest_search_ms": [1000 * max(column) for column in zip(*search, strict=True)],
        "ten_probes_ms": [1000 * seconds for seconds in ten],
        "memory_mb": peak_megabytes() - before,
    }
    print(json.dumps(result))


def run_step(step: str, path: Path, names: int, options: argparse.Namespace) -> dict:
    """Run a step in a process of its own; give what it printed."""
    command = [sys.executable, __file__, "--step", step, "--store", str(path), "--names", str(names)]
    command += ["--threads", str(options.threads), "--repeats", str(options.repeats)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{run.stderr}error: {step} ended with exit code {run.returncode}")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "identification")
    parser.add_argument("--step", choices=["write", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        with threadpool_limits(options.threads):
            if options.step == "write":
                return write_store(options.store, options.names[0])
            return search_store(options.store, options.names[0], options.repeats)
    if options.repeats < 10 or min(options.names) <= options.repeats:
        parser.error("--repeats must be 10 or more, and --names more than that")

    machine, load = describe_machine(options.threads), os.getloadavg()[0]
    print(f"{machine}; load {load:.1f} at the start; {SIZE} dimensions, seed {SEED}\n")
    print(
        "| names | store, MB | enrolment, s | first search, s | search, ms | slowest, ms | 10 probes, ms | memory, MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for names in options.names:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "voices.sqlite"
            row = {"names": names} | run_step("write", path, names, options)
            row |= {"store_mb": path.stat().st_size / 2**20} | run_step("search", path, names, options)
        rows.append(row)
        cells = [f"{names:,}", f"{row['store_mb']:.0f}"]
        for key, digits in (
            ("enrolment_s", 1),
            ("first_search_s", 2),
            ("search_ms", 1),
            ("slowest_search_ms", 1),
            ("ten_probes_ms", 1),
        ):
            wall, cpu = row[key]
            cells.append(f"{wall:.{digits}f} ({cpu:.{digits}f})")
        print(f"| {' | '.join(cells)} | {row['memory_mb']:.0f} |", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine,
        "load": [load, os.getloadavg()[0]],
        "size": SIZE,
        "seed": SEED,
        "rows": rows,
    }
    (options.output / "identification.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
