"""Time the preparation of VoxCeleb against SpeechBrain's, and project it to VoxCeleb2.

Makes a corpus in VoxCeleb's layout in a temporary folder: wav files of 4 to 8 s (16 kHz, 16 bit), hard links
to a few dozen distinct files to save disk. So all of them are in the system's memory: decoding is as quick
as it gets, which favours the preparation that decodes.

SpeechBrain's own is `recipes/VoxCeleb/voxceleb_prepare.py` of its repository (not in the package): give it
with --speechbrain-recipe. Without it, its work is restated here: list the files with glob, decode each with
`speechbrain.dataio.audio_io.load` to learn its length, take the mean amplitude of each 3 s piece, write CSV.
"Whole files" is the same without the pieces (its option random_segment=True): little more than decoding.

CPU seconds stand beside wall-clock seconds, as they hardly depend on what else the machine does.

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
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.dataio import audio_io

from speechbrain_bccmt.data.voxceleb import prepare_voxceleb

VOXCELEB2_DEV = 1_092_009  # files
UTTERANCES, SESSIONS, TEST_SPEAKERS = 20, 5, 4  # a session, a speaker, in the trial list


def make_corpus(folder: Path, files: int, sources: int = 48) -> Path:
    """Write `files` wav files in VoxCeleb's layout and a trial list; return the trial list."""
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
    trials = folder / "veri_test.txt"
    with open(trials, "w") as file:
        for i in range(200):
            enrol, test = i % TEST_SPEAKERS, (i + i // 100) % TEST_SPEAKERS
            name = f"{i // TEST_SPEAKERS % UTTERANCES:05d}.wav"
            file.write(f"{int(enrol == test)} id{enrol:05d}/session0/{name} id{test:05d}/session1/{name}\n")
    trials.write_text("".join(dict.fromkeys(trials.read_text().splitlines(keepends=True))))
    return trials


def restated_preparation(data_folder: str, save_folder: str, trials: str, amplitudes: bool = True) -> None:
    """Do what SpeechBrain's recipe does for the splits train and dev, with its default settings."""
    with open(trials) as file:
        tested = {line.split()[1].split("/")[0] for line in file}
    paths = glob.glob(os.path.join(data_folder, "wav", "**", "*.wav"), recursive=True)
    paths = [path for path in paths if path.split("/wav/")[1].split("/")[0] not in tested]
    random.shuffle(paths)
    rows = []
    for path in paths:
        speaker, session, name = path.split("/")[-3:]
        signal = audio_io.load(path)[0].squeeze(0)
        duration = len(signal) / 16000
        if not amplitudes:
            rows.append([f"{speaker}--{session}--{name}", duration, path, 0, len(signal), speaker])
            continue
        for i in range(int(duration / 3.0)):
            piece = slice(i * 48000, (i + 1) * 48000)
            if torch.mean(np.abs(signal[piece])) >= 5e-4:
                rows.append(
                    [f"{speaker}--{session}--{name}_{i}", duration, path, piece.start, piece.stop, speaker]
                )
    os.makedirs(save_folder, exist_ok=True)
    with open(os.path.join(save_folder, "train.csv"), "w", newline="") as file:
        csv.writer(file).writerows(rows)


def load_recipe(path: str) -> Callable:
    """Return SpeechBrain's `prepare_voxceleb` from its file."""
    specification = importlib.util.spec_from_file_location("speechbrain_voxceleb_prepare", path)
    if specification is None or not os.path.isfile(path):
        sys.exit(f"error: no recipe at {path}")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.prepare_voxceleb


def timed(prepare: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and CPU seconds of one call; progress bars are not shown."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        wall, cpu = time.perf_counter(), time.process_time()
        prepare()
        return time.perf_counter() - wall, time.process_time() - cpu


def measure(corpus: Path, files: int, repeats: int, recipe: Callable | None) -> dict:
    """Time all preparations, taking turns, on a corpus of `files` files; return medians in seconds."""
    trials = str(make_corpus(corpus, files))
    data, save = str(corpus), str(corpus / "save")

    def ours() -> object:
        return prepare_voxceleb(data, save, trials, dev_speakers=2)

    def stock(whole_files: bool) -> None:
        if recipe is None:
            restated_preparation(data, save, trials, amplitudes=not whole_files)
        else:
            recipe(data, save, trials, splits=["train", "dev"], random_segment=whole_files)

    # "again" keeps the output of "ours", the others start from an empty folder.
    contenders = {
        "speechbrain": lambda: stock(False),
        "whole files": lambda: stock(True),
        "ours": ours,
        "again": ours,
    }
    seconds = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, prepare in contenders.items():
            if name != "again":
                shutil.rmtree(save, ignore_errors=True)
            seconds[name].append(timed(prepare))
    shutil.rmtree(corpus)
    row = {"files": files}
    for name, pairs in seconds.items():
        row[name], row[f"{name}, CPU"] = (statistics.median(column) for column in zip(*pairs, strict=True))
    for name in ("speechbrain", "whole files"):
        row[f"{name} / ours"] = row[name] / row["ours"]
        row[f"{name} / ours, CPU"] = row[f"{name}, CPU"] / row["ours, CPU"]
    return row


def project(rows: list[dict], name: str) -> float:
    """Extend the straight line through the measured times to VoxCeleb2's dev part, in seconds."""
    slope, offset = np.polyfit([row["files"] for row in rows], [row[name] for row in rows], 1)
    return float(slope * VOXCELEB2_DEV + offset)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20000, help="the largest corpus")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--speechbrain-recipe", metavar="PATH", help="SpeechBrain's voxceleb_prepare.py")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    least = 8 * (TEST_SPEAKERS + 3) * UTTERANCES * SESSIONS
    if arguments.files < least or arguments.repeats < 1:
        parser.error(f"--files must be {least} or more, --repeats 1 or more")
    recipe = load_recipe(arguments.speechbrain_recipe) if arguments.speechbrain_recipe else None
    torch.set_num_threads(1)

    rows = []
    print("Seconds, wall-clock (CPU); ratio to ours")
    names = ("ours", "unchanged", "SpeechBrain", "ratio", "whole files", "ratio")
    print(f"{'files':>7}" + "".join(f"{name:>17}" for name in names))
    with tempfile.TemporaryDirectory() as folder:
        for part in (8, 4, 2, 1):
            row = measure(Path(folder) / "corpus", arguments.files // part, arguments.repeats, recipe)
            rows.append(row)
            text = f"{row['files']:>7,}"
            for name in (
                "ours",
                "again",
                "speechbrain",
                "speechbrain / ours",
                "whole files",
                "whole files / ours",
            ):
                text += f"{row[name]:.2f} ({row[name + ', CPU']:.2f})".rjust(17)
            print(text, flush=True)
    projected = {name: project(rows, name) for name in ("ours", "again", "speechbrain")}
    print(
        f"Projected to VoxCeleb2 dev, {VOXCELEB2_DEV:,} files, in memory: ours {projected['ours']:.0f} s, "
        f"unchanged {projected['again']:.0f} s, SpeechBrain {projected['speechbrain'] / 60:.0f} min"
    )
    if arguments.output:
        report = {
            "machine": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "python": platform.python_version(),
            "speechbrain": "its own recipe" if recipe else "restated recipe",
            "repeats": arguments.repeats,
            "median_seconds": rows,
            "projected_seconds_voxceleb2_dev": projected,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
