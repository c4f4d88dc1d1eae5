#!/usr/bin/env python3
"""Compares a trained model's ONNX graph with its 8-bit forms: error rates on a trial list, file size and time.

    python benchmarks/quantisation.py MODEL --train_csv=.../save/train.csv --test_csv=.../verification/save/test.csv \
        --trials=meta/veri_test.txt [--utterances 100]

MODEL is the output folder of a training or a hub folder. The static form is calibrated on utterances of the training
CSV, spread evenly over it. One thread. Prints a table and writes results/quantisation.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from recipe_runs import ROOT, describe_machine

from speechbrain_bccmt.evaluation.experiment import read_rows
from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.export.quantise import error_rates, quantise_dynamic, quantise_static
from speechbrain_bccmt.inference.embedding import read_utterance
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.sessions import load_session
from speechbrain_bccmt.trials.read import read_trials


def milliseconds(path: Path, rate: int, repetitions: int = 30) -> float:
    """Median time of 3 s of noise, waveform to embedding, on one thread."""
    session = load_session(path, threads=1)
    wav = np.random.default_rng(0).normal(0, 0.1, (1, 3 * rate)).astype(np.float32)
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        session.run(None, {"waveform": wav})
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    """Export, quantise, evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--train_csv", type=Path, required=True)
    parser.add_argument("--test_csv", type=Path, required=True)
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--utterances", type=int, default=100, help="to calibrate the static form on")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "quantisation.json")
    arguments = parser.parse_args()
    model = load_speaker_model(arguments.model)
    trials, rows, training = (
        read_trials(arguments.trials),
        *map(read_rows, (arguments.test_csv, arguments.train_csv)),
    )
    count = min(arguments.utterances, len(training))
    chosen = [training[index * len(training) // count] for index in range(count)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        exact = export_onnx(model, Path(folder, "exact.onnx"), "waveform")
        speech = (read_utterance(row, model.sample_rate).numpy()[None] for row in chosen)
        forms = {
            "float32": exact,
            "int8, dynamic": quantise_dynamic(exact, Path(folder, "dynamic.onnx")),
            "int8, static": quantise_static(exact, Path(folder, "static.onnx"), speech, progress=True),
        }
        for name, path in forms.items():
            rates = error_rates(path, rows, trials, progress=True)
            results.append(
                {
                    "form": name,
                    "megabytes": round(path.stat().st_size / 1e6, 2),
                    "milliseconds_3s": round(milliseconds(path, model.sample_rate), 2),
                    **{key: rates[key] for key in ("eer", "min_dcf", "eer_threshold")},
                }
            )
    machine = describe_machine(threads=1)
    report = {"machine": machine, "model": str(arguments.model), "calibrated_on": count, "results": results}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{machine}\n\n| graph | MB | ms for 3 s | EER % | minDCF |\n|---|---|---|---|---|")
    for row in results:
        print(
            f"| {row['form']} | {row['megabytes']:.2f} | {row['milliseconds_3s']:.1f} | {100 * row['eer']:.2f} | "
            f"{row['min_dcf']:.4f} |"
        )


if __name__ == "__main__":
    main()
