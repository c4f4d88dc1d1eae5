#!/usr/bin/env python3
"""Measures the gain of `bccmt adapt` by number of recordings.

    python benchmarks/adaptation.py

The centre of each corpus of SPEECH_DATA comes from recordings of speakers who are not tested (a different speaker each,
if there are enough), and is subtracted from the embeddings of the speakers held out of training. Prints EER of whole
utterances by cosine, on these speakers and on the public lists; and, after 30 recordings, actDCF and Cllr of the trials
of shipped_calibration.py, each corpus with the calibration fitted on all others. Writes results/adaptation.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from card_speech import PUBLIC, TrialSet, available, held_out_set, trial_set, with_held_out
from model_card import embeddings, judge, load_tiny, score
from recipe_runs import ROOT, describe_machine
from shipped_calibration import draw, leave_one_out
from training_speech import training_utterances

from speechbrain_bccmt.inference.domain import find_domain
from speechbrain_bccmt.inference.graph import GraphVerifier

RECORDINGS = (10, 30, 100)
P_TARGET = 0.05


def corpus_centre(model, corpus: str, recordings: int = 30) -> np.ndarray:
    """Return the common component of a corpus, (D,), from recordings of speakers who are not tested."""
    generator = np.random.default_rng(0)
    spoken: dict[str, list[str]] = {}
    for _, speaker, path in training_utterances([corpus]):
        spoken.setdefault(speaker, []).append(path)
    order = generator.permutation(sorted(spoken))
    chosen = [spoken[speaker][generator.integers(len(spoken[speaker]))] for speaker in np.resize(order, recordings)]
    found = [model.embed_file(path) for path in chosen]
    heard = np.stack([one.embedding for one in found if one.speech_seconds])
    return find_domain(heard, model.threshold).centre


def without(centre: np.ndarray, embed: Callable) -> Callable:
    """Wrap `embed` to subtract a centre from its embeddings."""

    def centred(data: TrialSet, condition: str) -> tuple:
        vectors, *rest = embed(data, condition)
        return vectors - centre, *rest

    return centred


def main() -> int:
    """Run from the command line; return the exit code."""
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    torch.set_num_threads(1)
    tiny, model = load_tiny(), GraphVerifier.load("tiny", threads=1)
    names = with_held_out()
    sets = {f"{name}, held out": (name, held_out_set(name)) for name in names}
    sets |= {f"{name}, public list": (name, trial_set(name)) for name in available() if name in PUBLIC}
    centres = {(name, number): corpus_centre(model, name, number) for name in names for number in RECORDINGS}
    rows = {}
    for title, (name, data) in sets.items():
        vectors = embeddings("tiny", tiny, data, "whole")[0]
        ways = {0: vectors} | {number: vectors - centres[name, number] for number in RECORDINGS}
        rows[title] = {number: judge(score(way, data), data, intervals=False)["eer"] for number, way in ways.items()}
    speech = partial(embeddings, "tiny", tiny, vad=True)
    before = leave_one_out({name: draw(held_out_set(name), speech) for name in names}, P_TARGET)
    after = {name: draw(held_out_set(name), without(centres[name, 30], speech)) for name in names}
    costs = {"before": before, "after": leave_one_out(after, P_TARGET)}
    result = {"machine": describe_machine(1), "eer": rows, "costs": costs}
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results" / "adaptation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['machine']}\n\n| EER %, recordings | as shipped | " + " | ".join(map(str, RECORDINGS)) + " |")
    print("|---" * (2 + len(RECORDINGS)) + "|")
    means = {number: np.mean([row[number] for row in rows.values()]) for number in (0, *RECORDINGS)}
    for title, row in [*rows.items(), ("mean", means)]:
        print(f"| {title} | " + " | ".join(f"{100 * eer:.2f}" for eer in row.values()) + " |")
    keys = "act_dcf", "min_dcf", "cllr", "min_cllr"
    print(f"\n| left out | {' | '.join(f'{key}, before to after' for key in keys)} |\n" + "|---" * 5 + "|")
    for table in costs.values():
        table["mean"] = {key: float(np.mean([row[key] for row in table.values()])) for key in keys}
    for name in [*names, "mean"]:
        sides = [costs[way][name] for way in ("before", "after")]
        print(f"| {name} | " + " | ".join(f"{sides[0][key]:.3f} to {sides[1][key]:.3f}" for key in keys) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
