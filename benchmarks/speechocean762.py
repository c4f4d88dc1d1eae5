#!/usr/bin/env python3
"""Trains and verifies every system on real speech: Base, conventional Tiny, Tiny, and Tiny with distillation.

    python benchmarks/speechocean762.py [--epochs 10] [--runs base_1 tiny_1 ...] [--jobs 2] [--set key=value ...]

All systems get the same budget; --set changes keys of the training YAMLs, such as speeds=[100,90,110]. Runs on
speechocean762 in the folder SPEECH_DATA; finished runs are reused. Prints a table of EER and minDCF, with mean
and spread over the seeds, and of the divergence between student's and teacher's attention maps on the test utterances;
writes results.json into the output folder. benchmarks/backends.py scores the trained models by PLDA as well.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from recipe_runs import ROOT, describe_machine, short_budget, speechocean762, train, verify
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_bccmt import bccmt_base, bccmt_tiny
from speechbrain_bccmt.inference.embedding import read_utterance
from speechbrain_bccmt.inference.parameters import find_checkpoint_file
from speechbrain_bccmt.losses import AttentionMapLoss, match_blocks

SAMPLE_RATE = 16000
SYSTEMS = {
    "base": ("Base, modified", "bccmt", {"size": "base"}),
    "tiny_2d": ("Tiny, conventional", "bccmt", {"attention": "frequency_time"}),
    "tiny": ("Tiny, modified", "bccmt", {}),
    "tiny_kd": ("Tiny, modified, distilled", "bccmt_tiny_kd", {}),
}
DISTILLATION_KEYS = ("kd_weight", "kd_blocks", "embedding_weight")
RUNS = ["base_1", "tiny_2d_1", "tiny_2d_2", "tiny_1", "tiny_2", "tiny_kd_1", "tiny_kd_2"]


def load(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """Load a training folder's checkpoint with the lowest dev EER."""
    model.load_state_dict(torch.load(find_checkpoint_file(folder), map_location="cpu", weights_only=True))
    return model.eval()


@torch.no_grad()
def map_divergence(student_folder: Path, teacher_folder: Path, test_csv: Path, every: int = 8) -> float:
    """Average divergence KL(teacher || student) of the attention maps over test utterances, in nats."""
    student, teacher = load(bccmt_tiny(), student_folder), load(bccmt_base(), teacher_folder)
    front_end, norm = Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False)
    loss = AttentionMapLoss(match_blocks(student.depths, teacher.depths))
    with open(test_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::every]
    values = []
    for row in rows:
        wav = torch.as_tensor(read_utterance(row, SAMPLE_RATE))[None]
        features = norm(front_end(wav), torch.ones(1))
        maps = [model.forward_with_attention(features)[1] for model in (student, teacher)]
        values.append(float(loss(*maps)))
    return statistics.mean(values)


def main() -> None:
    """Train, verify, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", nargs="+", default=RUNS, help="system and seed; base_1 is the teacher")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="keys of the training YAMLs"
    )
    parser.add_argument("--teacher", type=Path, help="a trained Base; by default base_1 is trained first")
    parser.add_argument("--jobs", type=int, default=1, help="parallel trainings, one thread each")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "speechocean762")
    arguments = parser.parse_args()
    data, budget = speechocean762(), short_budget(arguments.epochs)
    teacher = arguments.teacher or arguments.output / "base_1"
    changed = dict(pair.split("=", 1) for pair in arguments.set)
    of_distillation = {key: changed.pop(key) for key in list(changed) if key in DISTILLATION_KEYS}

    def run(name: str) -> dict:
        system, seed = name.rsplit("_", 1)
        title, hparams, options = SYSTEMS[system]
        folder = arguments.output / name
        extra = {"teacher_source": str(teacher), **of_distillation} if system == "tiny_kd" else {}
        seconds = train(hparams, {**data, **budget, **changed, **options, "seed": int(seed), **extra}, folder)
        results = verify(folder, data)
        row = {
            "system": title,
            "seed": int(seed),
            "train_seconds": seconds,
            "parameters": results["n_parameters"],
        }
        for kind, summary in results["scores"].items():
            row[kind] = {key: summary[key] for key in ("eer", "min_dcf")}
        if system in ("tiny", "tiny_kd"):
            row["map_divergence"] = map_divergence(
                folder, teacher, folder / "verification" / "save" / "test.csv"
            )
        return row

    rows = [] if arguments.teacher else [run("base_1")]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows += pool.map(run, [name for name in arguments.runs if name != "base_1"])
    machine = describe_machine(threads=1)
    report = {"machine": machine, "budget": {**budget, **changed, **of_distillation}, "runs": rows}
    (arguments.output / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{machine}\n")
    print(
        "| system | parameters | EER % | minDCF | EER %, s-norm | minDCF, s-norm | map divergence | training, min |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for title, *_ in SYSTEMS.values():
        if runs := [row for row in rows if row["system"] == title]:
            print(table_row(title, runs))


def table_row(title: str, runs: list[dict]) -> str:
    """Return a row of the table: mean and spread (half the range) over the seeds."""

    def cell(values, digits, scale=1.0):
        values = [scale * value for value in values]
        spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.{digits}f}{spread}"

    cells = [title, f"{runs[0]['parameters']:,}"]
    for kind in ("cosine", "s-norm"):
        cells.append(cell([run[kind]["eer"] for run in runs], 2, 100))
        cells.append(cell([run[kind]["min_dcf"] for run in runs], 3))
    has_maps = "map_divergence" in runs[0]
    cells.append(cell([run["map_divergence"] for run in runs], 3) if has_maps else "")
    cells.append(cell([run["train_seconds"] / 60 for run in runs], 0))
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
