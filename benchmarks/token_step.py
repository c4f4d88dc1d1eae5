#!/usr/bin/env python3
"""Times a training step of TokenEmbedder against the time of its multiply-accumulates (MACs), on one thread.

    python benchmarks/token_step.py [--batch 32] [--seconds 1]

A step is a forward and backward pass over a batch of crops in single precision, with three times the MACs of a forward
pass. Steps are timed in turns with products of 512 x 512 matrices, whose rate gives the MAC time; best times are used,
as they are steadier than medians on a busy machine. Prints a Markdown table and where the time of a step goes.
"""

from __future__ import annotations

import argparse
import time

import torch
from latency_report import FRAMES_PER_SECOND
from recipe_runs import describe_machine
from torch.profiler import ProfilerActivity, profile

from speechbrain_bccmt import TokenEmbedder, token_bccmt_tiny
from speechbrain_bccmt.profiling import count_macs

ROUNDS = 30
MODELS = {
    "class token": lambda: TokenEmbedder(readout="class"),
    "class token, memory": lambda: TokenEmbedder(readout="class", memory_keys=64),
    "class and distillation token": lambda: TokenEmbedder(readout="class+distillation"),
    "class token on BC-CMT Tiny": token_bccmt_tiny,
}


def best(*works) -> list[float]:
    """Return the shortest time in seconds of each of several functions, run in turns."""
    least = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for number, work in enumerate(works):
            begin = time.perf_counter()
            work()
            least[number] = min(least[number], time.perf_counter() - begin)
    return least


def main() -> None:
    """Time, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = round(options.seconds * FRAMES_PER_SECOND)
    features = torch.randn(options.batch, frames, 80)
    one, other = torch.randn(2, 512, 512)
    print(f"{describe_machine(1)}; {options.batch} crops of {options.seconds:g} s\n")
    print("| model | million MACs a crop | step, ms | its MACs alone, ms | times |\n|---|---|---|---|---|")
    for name, build in MODELS.items():
        model = build().train()

        def step(model=model):
            model(features).square().mean().backward()

        step()
        seconds, product = best(step, lambda: one @ other)
        macs = count_macs(model.eval(), frames)
        alone = 3 * options.batch * macs * product / 512**3
        cells = f"{macs / 1e6:.2f} | {1e3 * seconds:.1f} | {1e3 * alone:.1f} | {seconds / alone:.1f}"
        print(f"| {name} | {cells} |", flush=True)
        model.train()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        MODELS["class token"]().train()(features).square().mean().backward()
    print("\n" + found.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


if __name__ == "__main__":
    main()
