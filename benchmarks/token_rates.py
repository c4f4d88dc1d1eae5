#!/usr/bin/env python3
"""Compares learning rates of the token block on training speakers alone: `token_claims.py` uses the best.

    python benchmarks/token_rates.py [--rates 0.002 0.006 0.012 0.024] [--epochs 30] [--seeds 1 2]

Of the 18 training speakers of arabic_speech_commands (SPEECH_DATA), 12 train and 6 test: all pairs of their utterances.
Prints the EER of a wrong phrase by the same speaker, and of an impostor with the right phrase.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from phrases import spread
from recipe_runs import ROOT, SPEECH, describe_machine
from token_claims import CORPUS, LR, SYSTEMS, feature_maps, train

from speechbrain_bccmt.scoring import equal_error_rate


def pair_eers(vectors: np.ndarray, speakers: np.ndarray, words: np.ndarray) -> tuple[float, float]:
    """Return the EER in percent of a wrong phrase and of an impostor, over all pairs."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.triu_indices(len(vectors), 1)
    scores = (vectors @ vectors.T)[pairs]
    speaker, word = ((names[:, None] == names)[pairs] for names in (speakers, words))
    target = scores[speaker & word]
    wrong, impostor = scores[speaker & ~word], scores[~speaker & word]
    return 100 * equal_error_rate(target, wrong)[0], 100 * equal_error_rate(target, impostor)[0]


def main() -> None:
    """Train at each rate, test, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[LR / 6, LR / 2, LR, 2 * LR])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["mean", "class"])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "token_claims")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    ids, maps, _ = feature_maps(CORPUS, options.output)
    speakers, words = (np.array([name.split("/")[part] for name in ids]) for part in (0, 1))
    split = (SPEECH / CORPUS / "meta" / "split.csv").read_text(encoding="utf-8").split()[1:]
    known = sorted(line.split(",")[0] for line in split if not line.endswith(",test"))
    held_out = np.isin(speakers, known[::3])
    trained = np.isin(speakers, known) & ~held_out
    pairs = [f"{who}/{what}" for who, what in zip(speakers[trained], words[trained], strict=True)]
    data = maps[trained], torch.tensor(np.unique(pairs, return_inverse=True)[1])
    print("| system | learning rate | loss | EER %, wrong phrase | EER %, impostor |\n|---|---|---|---|---|")
    for system in options.systems:
        for rate in options.rates:
            rows = []
            for seed in options.seeds:
                student, losses = train(system, seed, data, options.epochs, None, rate=rate)
                vectors = student.embed(maps[held_out])
                rows.append((losses[-1], *pair_eers(vectors, speakers[held_out], words[held_out])))
            cells = [spread(list(column)) for column in zip(*rows, strict=True)]
            print(f"| {system} | {rate:g} | {' | '.join(cells)} |", flush=True)
    print(f"\n{describe_machine(threads=1)}")


if __name__ == "__main__":
    main()
