#!/usr/bin/env python3
"""Trains Tiny from files and from shards, and compares the dev EER of the last epoch over several seeds.

    python benchmarks/shards.py [--corpus an4] [--seeds 1 2] [--epochs 6] [--dev-speakers 16]

Both read the same crops, in different order. The EER is that of all pairs of up to 12 whole utterances of each dev
speaker. Prints a table and writes results/shards/shards.json; finished trainings are not run again.
`benchmarks/loader.py --parts cold` compares the time of an epoch.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

import torch
from card_speech import all_pairs
from model_card import error_rate
from recipe_runs import ROOT, describe_machine, short_budget, speech_corpus, train

from speechbrain_bccmt import bccmt
from speechbrain_bccmt.corpora.shards import write_shards
from speechbrain_bccmt.inference.parameters import load_parameters


def main() -> None:
    """Run the trainings and print their EER."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="an4", help="in SPEECH_DATA")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--dev-speakers", type=int, default=16, help="kept from training, to compute the EER of")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "shards")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{describe_machine(1)}; load {os.getloadavg()[0]:.1f} at the start\n")
    print("| seed | dev EER %, files | shards |\n|---|---|---|", flush=True)
    rows = []
    for seed in options.seeds:
        row = {"seed": seed}
        for source in ("files", "shards"):
            folder = options.output / f"{source}-{seed}"
            budget = short_budget(options.epochs) | {"data_folder": str(speech_corpus(options.corpus)), "seed": seed}
            budget |= {"dev_speakers": options.dev_speakers, "crop_seconds": 1.0, "cache_audio": False}
            budget |= {"valid_interval": options.epochs}
            if source == "shards":
                packed = options.output.resolve() / f"packed-{seed}"
                with open(options.output / f"files-{seed}" / "save" / "train.csv", encoding="utf-8") as file:
                    write_shards(list(csv.DictReader(file)), packed, 2e6, progress=False)
                budget |= {"shards_folder": str(packed), "shuffle_buffer": 200}
            train("bccmt", budget, folder)
            with open(folder / "save" / "dev.csv", encoding="utf-8") as file:
                speakers = {line["spk_id"] for line in csv.DictReader(file)}
            network = bccmt("tiny")
            load_parameters({"embedding_model": network}, folder, min_key=None)
            row[source] = error_rate(network, all_pairs(options.corpus, speakers, "dev"), front_end="speechbrain")
        rows.append(row)
        print(f"| {seed} | {row['files']:.2f} | {row['shards']:.2f} |", flush=True)
    settings = {name: getattr(options, name) for name in ("corpus", "epochs", "dev_speakers")}
    report = {"machine": describe_machine(1), **settings, "rows": rows}
    (options.output / "shards.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
