#!/usr/bin/env python3
"""Compares the waveform graph of a model with its smaller files: size, error rates and time on one thread.

    python benchmarks/quantisation.py [MODEL] [--corpora speechocean762 ...]

Error rates use the cosine of whole utterances on the trials of the shipped model's card (card_speech.py, SPEECH_DATA),
whose speakers the shipped model never heard. The static 8-bit form takes its ranges from 100 utterances of
speechocean762 speakers who are in no trial. "Packed" means gzip, as in `bccmt export web`. Times are taken in turns.
Prints Markdown and writes results/quantisation.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from card_speech import available, read, trial_set
from recipe_runs import ROOT, describe_machine, speech_corpus
from tqdm import tqdm

from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.export.quantise import quantise_dynamic, quantise_static
from speechbrain_bccmt.export.weights import shrink_weights
from speechbrain_bccmt.inference.model_folder import load_speaker_model
from speechbrain_bccmt.scoring import cosine_scores, equal_error_rate, min_dcf
from speechbrain_bccmt.sessions import load_session
from speechbrain_bccmt.trials.trial_list import speaker_of

CALIBRATION = "speechocean762"
CALIBRATION_UTTERANCES = 100


def make_forms(model, folder: Path) -> dict[str, Path]:
    """Write all forms of a model's graph."""
    exact = export_onnx(model, folder / "exact.onnx", "waveform")
    return {
        "float32": exact,
        "float16 weights": shrink_weights(exact, folder / "float16.onnx", "float16"),
        "int8 weights": shrink_weights(exact, folder / "int8.onnx", "int8"),
        "int8, dynamic": quantise_dynamic(exact, folder / "dynamic.onnx"),
        "int8, static": quantise_static(exact, folder / "static.onnx", calibration_speech(), progress=True),
    }


def calibration_speech():
    """Yield waveforms (1, samples) of speakers who are in no trial."""
    tried = set(trial_set(CALIBRATION).speakers)
    files = find_utterances([str(speech_corpus(CALIBRATION))])
    others = [file.path for name, file in sorted(files.items()) if speaker_of(name) not in tried]
    for index in range(CALIBRATION_UTTERANCES):
        yield read(others[index * len(others) // CALIBRATION_UTTERANCES], "whole").numpy()[None]


def judge(sessions: dict, name: str) -> dict[str, dict]:
    """Evaluate all forms on the trials of a corpus; cosines are with the first form's embeddings."""
    data = trial_set(name)
    vectors = {form: [] for form in sessions}
    for path in tqdm(data.paths, name, unit="utt", disable=None):
        wav = read(path, "whole").numpy()[None]
        for form, session in sessions.items():
            vectors[form].append(session.run(None, {"waveform": wav})[0][0])
    exact = np.stack(vectors["float32"]).astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    found = {}
    for form, rows in vectors.items():
        rows = np.stack(rows).astype(np.float64)
        scores = np.asarray(cosine_scores(rows, data.enrol, data.test, data.models), dtype=np.float64)
        cosines = (rows * exact).sum(1) / np.linalg.norm(rows, axis=1)
        found[form] = {
            "eer": float(equal_error_rate(scores[data.target], scores[~data.target])[0]),
            "min_dcf": float(min_dcf(scores[data.target], scores[~data.target])[0]),
            "cosine_median": float(np.median(cosines)),
            "cosine_lowest": float(cosines.min()),
        }
    return found


def times_in_turns(sessions: dict, rate: int, rounds: int = 40, passes: int = 10) -> dict[str, list[float]]:
    """Return milliseconds from waveform to embedding for 3 s of noise."""
    wav = np.random.default_rng(0).normal(0, 0.1, (1, 3 * rate)).astype(np.float32)
    times = {form: [] for form in sessions}
    for _ in range(rounds):
        for form, session in sessions.items():
            session.run(None, {"waveform": wav})
            for _ in range(passes):
                start = time.perf_counter()
                session.run(None, {"waveform": wav})
                times[form].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Export, shrink, evaluate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--corpora", nargs="+", choices=available(), default=available())
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "quantisation.json")
    arguments = parser.parse_args()
    model = load_speaker_model(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_forms(model, Path(folder))
        sizes = {form: path.stat().st_size for form, path in paths.items()}
        packed = {form: len(gzip.compress(path.read_bytes())) for form, path in paths.items()}
        sessions = {form: load_session(path, threads=1) for form, path in paths.items()}
        times = times_in_turns(sessions, model.sample_rate)
        judged = {name: judge(sessions, name) for name in arguments.corpora}
    forms = {
        form: {
            "megabytes": sizes[form] / 1e6,
            "packed_megabytes": packed[form] / 1e6,
            "median_ms": statistics.median(times[form]),
            "best_ms": min(times[form]),
            "corpora": {name: rows[form] for name, rows in judged.items()},
        }
        for form in paths
    }
    report = {"machine": describe_machine(1), "model": arguments.model, "forms": forms}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{report['machine']}\n\nEER %; cosine: the lowest with the float32 graph, all corpora\n")
    print(f"| graph | MB | packed | ms, median (best) | cosine | {' | '.join(judged)} |")
    print("|---|" + "---:|" * (4 + len(judged)))
    for form, row in forms.items():
        lowest = min(entry["cosine_lowest"] for entry in row["corpora"].values())
        rates = " | ".join(f"{100 * entry['eer']:.2f}" for entry in row["corpora"].values())
        print(
            f"| {form} | {row['megabytes']:.2f} | {row['packed_megabytes']:.2f} | {row['median_ms']:.2f} "
            f"({row['best_ms']:.2f}) | {lowest:.6f} | {rates} |"
        )


if __name__ == "__main__":
    main()
