#!/usr/bin/env python3
"""Growth of the work with the data: preparation, training, extraction, scoring and search at three sizes each.

    python benchmarks/scale.py [--stages preparation training extraction scoring search]

- `preparation`: `prepare_voxceleb` over files of 0.1 s, of which only the header is read.
- `training`: the data of a training before its first batch: train.csv and the order of an epoch.
- `extraction`: `Archive` over recordings of speechocean762 in SPEECH_DATA, speech alone, one process.
- `scoring`: a trial list from text to EER, 192 dimensions, cosine, 50 trials per utterance.
- `search`: enrolment in a file of voiceprints and its first search (benchmarks/identification.py has the rest).

Each size runs in a separate process, on one thread; seconds are processor seconds, memory is the peak minus the memory
before. The slope is the exponent of growth from the second to the third size: 1 is proportional. Prints a table and
writes results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from peak_memory import peak_megabytes
from recipe_runs import ROOT, describe_machine, speech_corpus

SEED, SIZE = 1986, 192


def prepare(count: int, folder: Path) -> Callable[[], object]:
    """Write a corpus of `count` files; return its preparation."""
    from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb

    soundfile.write(folder / "one.wav", np.zeros(1600), 16000)
    content = (folder / "one.wav").read_bytes()
    for number in range(count):
        path = folder / "corpus" / "wav" / f"id{number // 100:05d}" / f"s{number // 10 % 10}" / f"{number % 10:05d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return lambda: prepare_voxceleb(folder / "corpus", folder / "save", dev_speakers=2, progress=False)


def train(count: int, folder: Path) -> Callable[[], object]:
    """Write train.csv with `count` utterances; return a training's work on it before the first batch."""
    from speechbrain.dataio.dataio import load_data_csv
    from speechbrain.dataio.sampler import ReproducibleRandomSampler

    from speechbrain_bccmt.training.crops import TrainingCrops

    with open(folder / "train.csv", "w", encoding="utf-8") as file:
        file.write("ID,duration,wav,start,stop,spk_id,sample_rate\n")
        for number in range(count):
            name = f"id{number // 100:05d}/21Uxsk56VDQ/{number % 100:05d}"
            file.write(f"{name},8.0000,/data/voxceleb2/wav/{name}.wav,0,128000,{name[:7]},16000\n")

    def run():
        crops = TrainingCrops(load_data_csv(folder / "train.csv"), folder / "labels.txt")
        return crops, list(ReproducibleRandomSampler(crops))

    return run


def extract(count: int, folder: Path) -> Callable[[], object]:
    """Return the embedding of `count` recordings into an archive."""
    from speechbrain_bccmt.audio.folders import find_recordings
    from speechbrain_bccmt.audio.recording import read_mono
    from speechbrain_bccmt.inference.archive import Archive
    from speechbrain_bccmt.inference.loading import load_verifier

    files = find_recordings(speech_corpus("speechocean762"))
    paths = {}
    for number in np.random.default_rng(SEED).choice(len(files), count):
        path = str(folder / f"{len(paths):06d}.wav")
        soundfile.write(path, read_mono(files[number], 16000), 16000)
        paths[path] = path
    archive = Archive(folder / "kept", load_verifier())
    return lambda: sum(result.seconds for _, result in archive.embed(paths)) / 3600


def score(count: int, folder: Path) -> Callable[[], object]:
    """Write a list of `count` trials; return its scoring."""
    from speechbrain_bccmt.scoring.cosine import cosine_scores
    from speechbrain_bccmt.scoring.metrics import equal_error_rate
    from speechbrain_bccmt.trials.read import read_trials

    generator, utterances = np.random.default_rng(SEED), max(100, count // 50)
    embeddings = generator.standard_normal((utterances, SIZE), dtype=np.float32)
    sides = generator.integers(0, utterances, (count, 2))
    with open(folder / "trials.txt", "w", encoding="utf-8") as file:
        for one, other in sides.tolist():
            file.write(f"{(one + other) % 2} id{one:07d}/s/0.wav id{other:07d}/s/0.wav\n")

    def run():
        trials = read_trials(folder / "trials.txt")
        rows = embeddings[[int(name[2:9]) for name in trials.ids]]
        scores = cosine_scores(rows, trials.enrol, trials.test, trials.models)
        return equal_error_rate(scores[trials.target], scores[~trials.target])

    return run


def search(count: int, folder: Path) -> Callable[[], object]:
    """Return the enrolment of `count` names, and the first search."""
    from speechbrain_bccmt.voiceprints.store import Voiceprints

    embeddings = np.random.default_rng(SEED).standard_normal((count, SIZE), dtype=np.float32)
    prints = Voiceprints(folder / "voices.sqlite", "0123456789abcdef")

    def run():
        for first in range(0, count, 50_000):
            some = embeddings[first : first + 50_000]
            prints.enroll_many((f"name {first + i}", row[None], [3.0], None) for i, row in enumerate(some))
        return prints.identify(embeddings[:1], 0.5)

    return run


STAGES = {
    "preparation": (prepare, "files", (5_000, 20_000, 80_000)),
    "training": (train, "utterances", (20_000, 100_000, 500_000)),
    "extraction": (extract, "recordings", (100, 300, 900)),
    "scoring": (score, "trials", (50_000, 250_000, 1_250_000)),
    "search": (search, "prints", (10_000, 50_000, 250_000)),
}


def measure(stage: str, count: int, folder: Path | None) -> dict:
    """Run a stage at one size in this process."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = STAGES[stage][0](count, Path(name))
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak
        memory, begun, cpu = peak_megabytes(), time.perf_counter(), time.process_time()
        result = run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - begun
        found = {"count": count, "cpu_s": cpu, "wall_s": wall, "memory_mb": peak_megabytes() - memory}
        return found | ({"hours": result} if stage == "extraction" else {})


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--folder", type=Path, help="folder for the temporary files")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "scale.json")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        print(json.dumps(measure(options.stages[0], options.count, options.folder)))
        return
    machine, load = describe_machine(1), os.getloadavg()[0]
    print(f"{machine}; load {load:.1f} at the start; seed {SEED}\n")
    print("| stage | size | core-s | s | memory, MB | core-s a million | MB a million | slope |")
    print("|---" * 8 + "|")
    rows = []
    for stage in options.stages:
        _, unit, sizes = STAGES[stage]
        for count in sizes:
            command = [sys.executable, __file__, "--stages", stage, "--count", str(count)]
            if options.folder is not None:
                command += ["--folder", str(options.folder)]
            run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            if run.returncode:
                sys.exit(f"{run.stderr}error: {stage} of {count} ended with exit code {run.returncode}")
            row = {"stage": stage, "unit": unit} | json.loads(run.stdout.splitlines()[-1])
            before = rows[-1] if rows and rows[-1]["stage"] == stage and count == sizes[-1] else None
            if before is not None:
                row["slope"] = math.log(row["cpu_s"] / before["cpu_s"]) / math.log(count / before["count"])
            rows.append(row)
            cells = [stage, f"{count:,} {unit}", f"{row['cpu_s']:.2f}", f"{row['wall_s']:.2f}"]
            cells.append(f"{row['memory_mb']:,.0f}")
            cells += [f"{1e6 * row[key] / count:,.0f}" for key in ("cpu_s", "memory_mb")]
            cells.append(f"{row['slope']:.2f}" if before else "")
            print(f"| {' | '.join(cells)} |", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine, "load": [load, os.getloadavg()[0]], "seed": SEED, "rows": rows}
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
