#!/usr/bin/env python3
"""Profiles the waveform graph of a model, operator by operator, on one thread.

    python benchmarks/graph_profile.py [MODEL] [--seconds 3] [--graph FILE]

MODEL is any model, by default the shipped one, which is exported here; `--graph` profiles an ONNX file instead, such as
one of an earlier version. Prints Markdown: the time of a pass next to that of its multiply-accumulate operations
(MACs), then tables by kind of operator and by part of the model, and writes results/graph_profile.json.

The time of a pass is measured without the profiler, in turns with products of 512 x 512 matrices, whose rate gives the
MAC time, as in latency.py; on a busy machine best times are steadier than medians. MACs are those that the graph
actually performs. The profiler adds some microseconds to each operator: the extra time of a profiled pass is subtracted
in equal parts. Operators that take much less than that show as 0.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from latency import front_end_macs
from latency_report import FRAMES_PER_SECOND
from recipe_runs import ROOT, describe_machine

from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.profiling import count_macs
from speechbrain_bccmt.sessions import load_session

ROUNDS, PASSES, PRODUCTS = 60, 10, 3
# By the node names from tracing; nodes that match none belong to the cutting of long recordings.
PARTS = {"front_end": "front end", "stem": "convolutions", "downsamples": "convolutions", "means": "frequency work"}
PARTS |= {"plane": "frequency work", "local_time": "local perception", "attention": "attention"}
PARTS |= {"feed_time": "feed-forward", "stages": "between them", "pooling": "pooling and embedding"}
PARTS |= {"embedding/": "pooling and embedding"}


def time_in_turns(path: Path, wav: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the seconds of passes of a graph and of products of 512 x 512 matrices."""
    session = load_session(path, threads=1)
    torch.set_num_threads(1)
    one, other = torch.randn(2, 512, 512)
    passes, products = [], []
    for _ in range(ROUNDS):
        session.run(None, {"waveform": wav})
        passes += [_seconds(lambda: session.run(None, {"waveform": wav})) for _ in range(PASSES)]
        products += [_seconds(lambda: one @ other) for _ in range(PRODUCTS)]
    return passes, products


def _seconds(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def profile(path: Path, wav: np.ndarray, passes: int = 200) -> list[dict]:
    """Return the nodes of a graph as onnxruntime runs it: `kind`, `name`, `microseconds`, `macs`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = 1, True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(passes):
            session.run(None, {"waveform": wav})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times, arguments = defaultdict(list), {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"]].append(event["dur"])
            arguments[event["name"]] = event["args"]
    return [
        {
            "kind": arguments[name]["op_name"],
            "name": name.removesuffix("_kernel_time"),
            # The best quarter, as other work on the machine lengthens some.
            "microseconds": statistics.mean(sorted(durations)[: len(durations) // 4]),
            "macs": node_macs(arguments[name]),
        }
        for name, durations in times.items()
    ]


def node_macs(arguments: dict) -> int:
    """Count the multiply-accumulate operations of a node from the shapes recorded by the profiler."""
    (output, *_), inputs = (
        [next(iter(entry.values())) for entry in arguments[key]]
        for key in ("output_type_shape", "input_type_shape")
    )
    if arguments["op_name"] in ("Conv", "FusedConv"):
        return math.prod(output) * math.prod(inputs[1][1:])
    if arguments["op_name"] in ("MatMul", "FusedMatMul", "Gemm"):
        return math.prod(output) * inputs[0][-1] * inputs[0][-2] // output[-2]
    return 0


def part_of(name: str) -> str:
    """Return the part of the model that a node belongs to."""
    return next((part for word, part in PARTS.items() if word in name), "cutting, joining, layout")


def table(nodes: list[dict], key, total: float, rate: float, title: str) -> list[str]:
    """Return rows of a Markdown table of nodes grouped by `key`, the slowest group first."""
    groups = defaultdict(list)
    for node in nodes:
        groups[key(node)].append(node)
    lines = [f"| {title} | calls | ms | share % | M MACs | their MAC time, ms |", "|---|---:|---:|---:|---:|---:|"]
    rows = []
    for name, group in groups.items():
        ms, macs = sum(node["net"] for node in group) / 1000, sum(node["macs"] for node in group)
        row = f"{name} | {len(group)} | {ms:.3f} | {100 * ms / total:.1f} | {macs / 1e6:.2f} | {1000 * macs / rate:.3f}"
        rows.append((ms, f"| {row} |"))
    return lines + [line for _, line in sorted(rows, reverse=True)]


def main() -> None:
    """Profile, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--graph", type=Path, help="ONNX file to profile, of the same model")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "graph_profile.json")
    arguments = parser.parse_args()
    model = load_speaker_model(arguments.model)
    wav = 0.1 * np.random.default_rng(0).standard_normal((1, arguments.seconds * model.sample_rate))
    wav = wav.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.graph or export_onnx(model, Path(folder, "waveform.onnx"), "waveform")
        passes, products = time_in_turns(path, wav)
        nodes = profile(path, wav)
    frames = arguments.seconds * FRAMES_PER_SECOND
    needed = count_macs(model.embedding_model, frames=frames) + front_end_macs(frames, 80)
    report = {"machine": describe_machine(1), "model": str(arguments.model), "seconds": arguments.seconds}
    for name, choose in (("median", statistics.median), ("best", min)):
        rate = 512**3 / choose(products)
        report[name] = {"ms": 1000 * choose(passes), "gmacs": rate / 1e9}
        report[name]["ratio"] = choose(passes) * rate / needed
    # The profiler's overhead, in equal parts.
    total = report["best"]["ms"]
    extra = (sum(node["microseconds"] for node in nodes) - 1000 * total) / len(nodes)
    for node in nodes:
        node["net"] = max(0.0, node["microseconds"] - extra)
    report["nodes"] = nodes
    done = sum(node["macs"] for node in nodes)
    print(
        f"{report['machine']}\n\n{arguments.seconds} s of audio, {len(nodes)} operators; the model needs "
        f"{needed / 1e6:.1f} M MACs, the graph does {done / 1e6:.1f} M.\n"
    )
    print("| | ms | GMAC/s of a matrix product | time / MAC time |\n|---|---:|---:|---:|")
    for name in ("median", "best"):
        row = report[name]
        print(f"| {name} | {row['ms']:.3f} | {row['gmacs']:.1f} | {row['ratio']:.2f} |")
    rate = 1e9 * report["best"]["gmacs"]
    for key, title in ((lambda node: node["kind"], "operator"), (lambda node: part_of(node["name"]), "part")):
        print("", *table(nodes, key, total, rate, title), sep="\n")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
