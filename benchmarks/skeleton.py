#!/usr/bin/env python3
"""Compares skeletons of BC-CMT Tiny: size, operations, latency on one thread, and EER after a short training.

    python benchmarks/skeleton.py                       # size, operations and latency only
    python benchmarks/skeleton.py --train [--epochs 7] [--seeds 1 2]

Training and its EER run on speechocean762 in the folder SPEECH_DATA (see docs/skeleton.md). Prints a table and
writes results/skeleton/skeleton.json. docs/skeleton.md discusses the results.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from recipe_runs import ROOT, describe_machine, short_budget, speechocean762, train, verify

from speechbrain_bccmt import bccmt_tiny
from speechbrain_bccmt.profiling import count_macs, count_parameters, latency_ms

VARIANTS = {
    "chosen": {},
    "conventional (2-D attention)": {"attention": "frequency_time"},
    "wider early stages": {
        "stem_channels": 24,
        "channels": [24, 40, 56, 72],
        "expansions": [48, 80, 112, 144],
    },
    "frequency kept in stage 1": {"frequency_strides": [1, 2, 2, 2]},
    "10 frequencies at the end": {"frequency_strides": [2, 2, 1, 1]},
    "time kept at 20 ms": {"time_strides": [1, 1, 1, 1]},
    "one block less, no groups": {"depths": [1, 1, 2, 1], "groups": 1},
    "wide and shallow": {
        "channels": [16, 32, 64, 96],
        "depths": [1, 1, 1, 1],
        "expansions": [32, 64, 128, 192],
    },
    "kernel of 5 frames": {"kernel_size": 5},
}


def main() -> None:
    """Measure every variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", action="store_true", help="train each variant and report its EER")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "skeleton")
    arguments = parser.parse_args()
    data = speechocean762() if arguments.train else {}
    budget = short_budget(arguments.epochs)
    machine = describe_machine(threads=1)
    print(machine)
    rows = []
    for name, options in VARIANTS.items():
        model = bccmt_tiny(**options)
        row = {
            "variant": name,
            "options": options,
            "parameters": count_parameters(model),
            "macs_100_frames": count_macs(model, frames=100),
            "ms_1s": latency_ms(model, frames=100),
            "ms_10s": latency_ms(model, frames=1000, repeats=20),
        }
        text = (
            f"{name:30s} {row['parameters']:8,d} parameters {row['macs_100_frames'] / 1e6:6.1f} M MACs at 100 "
            f"frames {row['ms_1s']:6.1f} ms at 1 s {row['ms_10s']:6.1f} ms at 10 s"
        )
        if arguments.train:
            results = []
            for seed in arguments.seeds:
                folder = arguments.output / f"{name.split(' (')[0].replace(' ', '_').replace(',', '')}_{seed}"
                chosen = {"embedding_model": options} if options else {}
                train("bccmt", {**data, **budget, "seed": seed, **chosen}, folder)
                results.append(verify(folder, {**data, **chosen})["scores"]["cosine"])
            row["eer"] = [result["eer"] for result in results]
            row["min_dcf"] = [result["min_dcf"] for result in results]
            text += (
                f" EER {100 * statistics.mean(row['eer']):.2f} % minDCF {statistics.mean(row['min_dcf']):.3f}"
            )
        print(text, flush=True)
        rows.append(row)
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine, "budget": budget, "seeds": arguments.seeds, "variants": rows}
    (arguments.output / "skeleton.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
