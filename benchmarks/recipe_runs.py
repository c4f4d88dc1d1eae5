"""Runs the recipes' scripts for the benchmarks, reusing finished runs of earlier calls."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
SPEECH = Path(os.environ.get("SPEECH_DATA", ROOT.parent / "shared" / "speech"))


def short_budget(epochs: int) -> dict:
    """Return the options of the trainings compared on speechocean762: minutes to an hour on one thread."""
    return {
        "number_of_epochs": epochs,
        "batch_size": 32,
        "crop_seconds": 1.6,
        "warmup_epochs": 1,
        "margin_start_epoch": 1,
        "margin_end_epoch": epochs // 2,
        "weight_decay": 0.05,
        "valid_interval": 2,
        "cache_audio": True,
    }


def speech_corpus(name: str) -> Path:
    """Return the folder of a corpus in SPEECH_DATA; exit with a hint if it is missing."""
    corpus = SPEECH / name
    if not corpus.is_dir():
        raise SystemExit(f"no speech at {corpus}: set SPEECH_DATA to the folder that holds {name}")
    return corpus


def speechocean762() -> dict:
    """Return the options that name the corpus and its trial list."""
    corpus = speech_corpus("speechocean762")
    return {"data_folder": str(corpus), "verification_file": str(corpus / "meta" / "veri_test.txt")}


def describe_machine(threads: int) -> str:
    """Return the processor, its cores and the library versions that a figure depends on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    return (
        f"{model}, {os.cpu_count()} cores, {threads} thread(s) a run, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def run_script(script: str, hparams: str, options: dict, folder: Path, recipe: str = "VoxCeleb") -> None:
    """Run a script of the recipe on one thread and log into `folder`; skip it if it is already done.

    Raises
    ------
    SystemExit
        With the script's exit code, if it fails; the log's path is printed.
    """
    done = folder / f"{Path(script).stem}.done.json"
    words = [script, f"hparams/{hparams}.yaml"]
    words += [
        f"--{key}={json.dumps(value) if isinstance(value, (dict, list)) else value}"
        for key, value in options.items()
    ]
    if done.is_file():
        if json.loads(done.read_text())["command"] == words:
            return
        raise SystemExit(f"{folder} holds a run with other settings: delete it or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    print("python " + " ".join(words), flush=True)
    log = folder / "console.txt"
    with open(log, "a", encoding="utf-8") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT / "recipes" / recipe / "SpeakerRec",
            env=environment,
            stdout=file,
            stderr=file,
            check=False,
        ).returncode
    if code:
        raise SystemExit(f"{script} ended with exit code {code}: see {log}")
    done.write_text(json.dumps({"command": words}))


def train(hparams: str, options: dict, folder: Path, recipe: str = "VoxCeleb") -> float:
    """Train into `folder`, or resume there; return the seconds that its epochs took, from its log."""
    # The script runs in the recipe's folder.
    options = {**options, "output_folder": str(folder.resolve()), "device": "cpu"}
    run_script("train_speaker_embeddings.py", hparams, options, folder, recipe)
    return sum(map(float, re.findall(r"train seconds: ([\d.e+]+)", (folder / "train_log.txt").read_text())))


def verify(
    model: Path,
    options: dict,
    hparams: str = "verification",
    recipe: str = "VoxCeleb",
    name: str = "verification",
) -> dict:
    """Verify with the model of a training folder, in its folder `name`; return the content of results.json."""
    folder = model / name
    paths = {"pretrain_path": str(model.resolve()), "output_folder": str(folder.resolve())}
    options = {**options, **paths, "device": "cpu"}
    run_script("speaker_verification_cosine.py", hparams, options, folder, recipe)
    return json.loads((folder / "results.json").read_text())
