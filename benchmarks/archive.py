#!/usr/bin/env python3
r"""Hours of speech embedded per core hour: `bccmt embed` file by file, and into an archive with 1 and 2 jobs.

    python benchmarks/archive.py [--recordings 2000] [--corpora speechocean762 common_voice_mini] [--wav] [--busy 1] \
        [--threads 2 1]

The recordings are drawn from corpora in SPEECH_DATA; --wav decodes them first, as reading Opus costs more than the
network. --threads applies to the file-by-file mode; PyTorch's default is one per core. --busy starts processes that
only compute. Each mode embeds all recordings in a separate process, whose start-up of some seconds is included. Prints
a table and writes results/archive.json.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from recipe_runs import ROOT, describe_machine, speech_corpus

from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.recording import Recording, read_mono
from speechbrain_bccmt.inference.embedding_files import read_embeddings

SEED = 1986
# Linux, prctl(2): orphaned grandchildren become children of this process.
SET_CHILD_SUBREAPER = 36


def draw_recordings(corpora: list[str], count: int) -> list[str]:
    """Draw recordings at random from all corpora."""
    files = sorted(path for corpus in corpora for path in find_recordings(speech_corpus(corpus)))
    if len(files) < count:
        raise SystemExit(f"{', '.join(corpora)} have {len(files)} recordings, fewer than {count}")
    return sorted(np.random.default_rng(SEED).choice(files, count, replace=False).tolist())


def decode(files: list[str], folder: Path) -> list[str]:
    """Write the recordings as WAV at 16 kHz."""
    decoded = [str(folder / f"{number:06d}.wav") for number in range(len(files))]
    for source, target in zip(files, decoded, strict=True):
        soundfile.write(target, read_mono(source, 16000), 16000)
    return decoded


def run(files: list[str], output: Path, threads: int, *options: str) -> dict:
    """Embed the recordings with the command; return its wall-clock and processor seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "speechbrain_bccmt.cli", "embed", "-", "--quiet", "-o", str(output), *options],
        input="\n".join(files),
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)},
    )
    seconds = time.monotonic() - begun
    # The processes that the command leaves behind end at once; their time counts only once they are waited for.
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < begun + seconds + 2:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "core_seconds": used}


def compute_forever() -> None:
    """Keep a core busy."""
    while True:
        np.sqrt(np.arange(100_000))


def main() -> None:
    """Run all modes and print the table."""
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--corpora", nargs="+", default=["speechocean762", "common_voice_mini"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--wav", action="store_true")
    parser.add_argument("--no-vad", action="store_true", help="embed whole recordings")
    parser.add_argument("--busy", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    files = draw_recordings(arguments.corpora, arguments.recordings)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if arguments.wav:
            files = decode(files, folder)
        hours = sum(Recording.open(path).seconds for path in files) / 3600
        ways = {
            **{f"file by file, threads: {threads}": (threads,) for threads in arguments.threads},
            "archive, jobs: 1": (1, "--archive", str(folder / "one")),
            "archive, jobs: 2": (1, "--archive", str(folder / "two"), "--jobs", "2"),
        }
        neighbours = [
            multiprocessing.Process(target=compute_forever, daemon=True) for _ in range(arguments.busy)
        ]
        for neighbour in neighbours:
            neighbour.start()
        common = ["--no-vad"] * arguments.no_vad
        results = {way: run(files, folder / f"{way}.npz", *options, *common) for way, options in ways.items()}
        for neighbour in neighbours:
            neighbour.kill()
        first, *others = (_unit(read_embeddings(folder / f"{way}.npz").vectors) for way in ways)
    lowest = min(float((first * other).sum(1).min()) for other in others)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    kind = "WAV" if arguments.wav else "as they are"
    print(f"{describe_machine(1)}; load {load}; {arguments.busy} busy neighbours")
    print(f"{len(files)} recordings, {hours:.2f} h, {kind}")
    print(
        "\n| way | s | core-s | hours an hour | hours a core-hour | times |\n|---|---:|---:|---:|---:|---:|"
    )
    before = results[next(iter(results))]["core_seconds"]
    for way, found in results.items():
        found["hours_per_hour"] = 3600 * hours / found["seconds"]
        found["hours_per_core_hour"] = 3600 * hours / found["core_seconds"]
        print(
            f"| {way} | {found['seconds']:.1f} | {found['core_seconds']:.1f} | {found['hours_per_hour']:.0f} | "
            f"{found['hours_per_core_hour']:.0f} | {before / found['core_seconds']:.1f} |"
        )
    print(f"\nLowest cosine of an embedding with that of the first way: {lowest:.7f}")
    target = ROOT / "results" / "archive.json"
    target.parent.mkdir(exist_ok=True)
    summary = {"recordings": len(files), "hours": hours, "busy": arguments.busy, "lowest_cosine": lowest}
    target.write_text(json.dumps(summary | {"ways": results}, indent=1) + "\n", encoding="utf-8")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
