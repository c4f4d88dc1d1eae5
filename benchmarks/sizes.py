#!/usr/bin/env python3
"""Parameters, operations and latency of every size and form, from features to embedding.

    python benchmarks/sizes.py [--threads 1] [--repeats 50]

Prints the table of the README and writes results/sizes/sizes.json.
"""

from __future__ import annotations

import argparse
import json

from recipe_runs import ROOT, describe_machine

from speechbrain_bccmt import bccmt_base, bccmt_small, bccmt_tiny
from speechbrain_bccmt.profiling import count_macs, count_parameters, latency_ms


def main() -> None:
    """Measure every encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    machine = describe_machine(arguments.threads)
    print(f"{machine}\n\n| encoder | form | parameters | MACs, 1 s (100 frames) | ms, 1 s | ms, 10 s |")
    print("|---|---|---|---|---|---|")
    rows = []
    for build in (bccmt_tiny, bccmt_small, bccmt_base):
        for form in ("temporal", "frequency_time"):
            model = build(form)
            row = {
                "encoder": build.__name__,
                "form": form,
                "parameters": count_parameters(model),
                "macs_100_frames": count_macs(model, frames=100),
                "ms_1s": latency_ms(model, 100, arguments.threads, arguments.repeats),
                "ms_10s": latency_ms(model, 1000, arguments.threads, arguments.repeats),
            }
            rows.append(row)
            print(
                f"| {build.__name__} | {form} | {row['parameters']:,} | {row['macs_100_frames'] / 1e6:.1f} M "
                f"| {row['ms_1s']:.1f} | {row['ms_10s']:.1f} |",
                flush=True,
            )
    folder = ROOT / "results" / "sizes"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sizes.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
