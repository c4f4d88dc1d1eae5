"""Time the preparation of VoxCeleb against SpeechBrain's, and project it to VoxCeleb2.

Makes a corpus in VoxCeleb's layout in a temporary folder: wav files of 4 to 8 s (16 kHz, 16 bit), hard links
to a few dozen distinct files to save disk. All of them are therefore in memory, and decoding is as fast as it
can be, which favours the preparation that decodes.

SpeechBrain's own is `recipes/VoxCeleb/voxceleb_prepare.py` in its repository (not in the package): pass it
with --speechbrain-recipe. Without it, a stand-in restates its work and the output says so: list the files
with glob, decode each with `speechbrain.dataio.audio_io.load` to get its length, take the mean amplitude of
each 3 s chunk, write CSV. Both with their default settings.

Every run is a new process, and the contenders take turns. Only the call is timed, without start and imports,
in wall-clock and CPU seconds; the latter depend less on other work on the machine. The times of the whole
process are in the JSON file, results/preparation/preparation.json. Takes three to five minutes.

    python benchmarks/preparation.py --speechbrain-recipe speechbrain/recipes/VoxCeleb/voxceleb_prepare.py
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import glob
import importlib.util
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from recipe_runs import ROOT, describe_machine

VOXCELEB2_DEV = 1_092_009  # files
UTTERANCES, SESSIONS, TEST_SPEAKERS = 20, 5, 4  # per session, per speaker, in the trial list
# "unchanged" finds the output of "ours" before it; the others start from an empty folder.
CONTENDERS = ("ours", "unchanged", "speechbrain")


def make_corpus(folder: Path, files: int, sources: int = 48) -> None:
    """Write `files` wav files in VoxCeleb's layout and a trial list."""
    rng = np.random.default_rng(1)
    (folder / "sources").mkdir(parents=True)
    for i in range(sources):
        noise = (rng.standard_normal(int(16000 * rng.uniform(4, 8))) * 3000).astype(np.int16)
        soundfile.write(folder / "sources" / f"{i}.wav", noise, 16000)
    for n in range(files):
        session, utterance = divmod(n, UTTERANCES)
        speaker, session = divmod(session, SESSIONS)
        target = folder / "wav" / f"id{speaker:05d}" / f"session{session}" / f"{utterance:05d}.wav"
        if utterance == 0:
            target.parent.mkdir(parents=True)
        os.link(folder / "sources" / f"{n % sources}.wav", target)
    lines = []
    for i in range(200):
        enrol, test = i % TEST_SPEAKERS, (i + i // 100) % TEST_SPEAKERS
        name = f"{i // TEST_SPEAKERS % UTTERANCES:05d}.wav"
        lines.append(f"{int(enrol == test)} id{enrol:05d}/session0/{name} id{test:05d}/session1/{name}\n")
    (folder / "veri_test.txt").write_text("".join(dict.fromkeys(lines)))


def stand_in(data_folder: str, save_folder: str, trials: str, splits: list[str]) -> None:
    """Do what SpeechBrain's recipe does for the splits train and dev, with its default settings."""
    from speechbrain.dataio import audio_io

    with open(trials) as file:
        tested = {line.split()[1].split("/")[0] for line in file}
    paths = glob.glob(os.path.join(data_folder, "wav", "**", "*.wav"), recursive=True)
    paths = [path for path in paths if path.split("/wav/")[1].split("/")[0] not in tested]
    random.shuffle(paths)
    os.makedirs(save_folder, exist_ok=True)
    first = int(0.9 * len(paths))
    for split, part in zip(splits, (paths[:first], paths[first:]), strict=True):
        rows = []
        for path in part:
            speaker, session, name = path.split("/")[-3:]
            signal = audio_io.load(path)[0].squeeze(0)
            duration = len(signal) / 16000
            for i in range(int(duration / 3.0)):
                chunk = slice(i * 48000, (i + 1) * 48000)
                if torch.mean(np.abs(signal[chunk])) >= 5e-4:
                    key = f"{speaker}--{session}--{name}_{i}"
                    rows.append([key, duration, path, chunk.start, chunk.stop, speaker])
        with open(os.path.join(save_folder, f"{split}.csv"), "w", newline="") as file:
            csv.writer(file).writerows(rows)


def run_contender(contender: str, corpus: str, recipe: str | None) -> None:
    """Prepare the corpus once in this process and print wall-clock and CPU seconds of the call."""
    torch.set_num_threads(1)
    data, save, trials = corpus, os.path.join(corpus, "save"), os.path.join(corpus, "veri_test.txt")
    options = {"splits": ["train", "dev"]}
    if contender != "speechbrain":
        from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb as prepare

        options = {"dev_speakers": 2}
    elif recipe is None:
        import speechbrain.dataio.audio_io  # noqa: F401  (not to be timed)

        prepare = stand_in
    else:
        specification = importlib.util.spec_from_file_location("speechbrain_recipe", recipe)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        prepare = module.prepare_voxceleb
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        wall, cpu = time.perf_counter(), time.process_time()
        prepare(data, save, trials, **options)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu}))


def timed(contender: str, corpus: Path, recipe: str | None) -> dict[str, float]:
    """Run a contender in a new process; return the seconds of the call and of the whole process."""
    if contender != "unchanged":
        shutil.rmtree(corpus / "save", ignore_errors=True)
    command = [sys.executable, __file__, "--contender", contender, "--corpus", str(corpus)]
    command += ["--speechbrain-recipe", recipe] if recipe else []
    wall, before = time.perf_counter(), os.times()
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - wall, os.times()
    if run.returncode:
        sys.exit(f"{run.stderr}error: {contender} ended with exit code {run.returncode}")
    seconds = json.loads(run.stdout.splitlines()[-1])
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds | {"process_wall": wall, "process_cpu": spent}


def measure(corpus: Path, files: int, repeats: int, recipe: str | None, peer: bool) -> dict:
    """Time the contenders, taking turns, on a corpus of `files` files; return all runs and their medians."""
    make_corpus(corpus, files)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS[: 3 if peer else 2]}
    for _ in range(repeats):
        for name in runs:
            runs[name].append(timed(name, corpus, recipe))
    shutil.rmtree(corpus)
    median = {
        name: {key: statistics.median(run[key] for run in several) for key in several[0]}
        for name, several in runs.items()
    }
    row = {"files": files, "median_seconds": median, "runs": runs}
    if peer:
        row["speechbrain / ours"] = {
            key: median["speechbrain"][key] / median["ours"][key] for key in median["ours"]
        }
    return row


def project(rows: list[dict], name: str, key: str) -> float:
    """Extend the straight line through the measured times to VoxCeleb2's dev part, in seconds."""
    seconds = [row["median_seconds"][name][key] for row in rows]
    slope, offset = np.polyfit([row["files"] for row in rows], seconds, 1)
    return float(slope * VOXCELEB2_DEV + offset)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20000, help="the largest corpus")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--speechbrain-recipe", metavar="PATH", help="SpeechBrain's voxceleb_prepare.py")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "preparation")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    recipe = arguments.speechbrain_recipe
    if arguments.contender:
        return run_contender(arguments.contender, arguments.corpus, recipe)
    least = 8 * (TEST_SPEAKERS + 3) * UTTERANCES * SESSIONS
    if arguments.files < least or arguments.repeats < 1:
        parser.error(f"--files must be {least} or more, --repeats 1 or more")
    if recipe and not os.path.isfile(recipe):
        parser.error(f"no recipe at {recipe}")

    load, rows = os.getloadavg()[0], []
    peer = "SpeechBrain's recipe" if recipe else "a stand-in for SpeechBrain's recipe, which was not given"
    machine = describe_machine(1)
    print(f"{machine}; load {load:.1f} at the start\nThe peer is {peer}.")
    print("Seconds of the call, wall-clock (CPU), and how often ours fits into the peer's")
    print(f"{'files':>7}" + "".join(f"{name:>18}" for name in ("ours", "unchanged", "peer", "ratio")))
    with tempfile.TemporaryDirectory() as folder:
        for part in (8, 4, 2, 1):
            size = arguments.files // part
            row = measure(Path(folder) / "corpus", size, arguments.repeats, recipe, peer=part in (4, 1))
            rows.append(row)
            cells = [row["median_seconds"].get(name) for name in CONTENDERS] + [row.get("speechbrain / ours")]
            text = [f"{cell['wall']:.2f} ({cell['cpu']:.2f})" if cell else "-" for cell in cells]
            print(f"{size:>7,}" + "".join(f"{cell:>18}" for cell in text), flush=True)
    projected = {
        name: {key: project(rows, name, key) for key in ("wall", "cpu")} for name in ("ours", "unchanged")
    }
    texts = [
        f"{name} {seconds['wall']:.0f} s ({seconds['cpu']:.0f} s)" for name, seconds in projected.items()
    ]
    print(f"Projected to VoxCeleb2 dev, {VOXCELEB2_DEV:,} files in memory: {', '.join(texts)}")
    report = {
        "machine": machine,
        "load": [load, os.getloadavg()[0]],
        "peer": peer,
        "rows": rows,
        "projected_seconds_voxceleb2_dev": projected,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "preparation.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
