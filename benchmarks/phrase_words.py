#!/usr/bin/env python3
"""Measures how well a class token tells apart words that it was trained on, and words that it was not.

    python benchmarks/phrase_words.py [--epochs 15] [--seeds 1 2 3]

A token on the maps of the shipped encoder learns the words of google_speech_commands (SPEECH_DATA) and is tested on its
held-out speakers; the unseen words are those of arabic_speech_commands, by its test speakers. Trials: each utterance
against as many of the same word as there are, and four times as many of others, always of another speaker. Prints the
EER of the phrase's cosine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from card_speech import held_out_speakers
from phrases import spread
from recipe_runs import ROOT, SPEECH, describe_machine
from token_claims import BATCH, feature_maps, train

from speechbrain_bccmt.scoring import equal_error_rate

LEARNT, OTHER = "google_speech_commands", "arabic_speech_commands"
MOST = 20  # trials of the same word per utterance


def word_eer(vectors: np.ndarray, speakers: np.ndarray, words: np.ndarray) -> float:
    """Return the EER in percent of same word against other word, between different speakers."""
    rng = np.random.default_rng(0)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    same, other = [], []
    for row, (speaker, word) in enumerate(zip(speakers, words, strict=True)):
        strangers = speakers != speaker
        for found, kind, most in ((same, words == word, MOST), (other, words != word, 4 * MOST)):
            rows = np.flatnonzero(strangers & kind)
            rows = rng.choice(rows, min(most, len(rows)), replace=False)
            found.append(vectors[rows] @ vectors[row])
    return 100 * equal_error_rate(np.concatenate(same), np.concatenate(other))[0]


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "token_claims")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    corpora = {}
    for corpus in (LEARNT, OTHER):
        ids, maps, _ = feature_maps(corpus, options.output)
        corpora[corpus] = maps, *(np.array([name.split("/")[part] for name in ids]) for part in (0, 1))
    maps, speakers, words = corpora[LEARNT]
    held_out = np.isin(speakers, sorted(held_out_speakers()[LEARNT]))
    labels = torch.tensor(np.unique(words, return_inverse=True)[1])
    split = (SPEECH / OTHER / "meta" / "split.csv").read_text(encoding="utf-8").split()[1:]
    tested = np.isin(corpora[OTHER][1], [line.split(",")[0] for line in split if line.endswith(",test")])
    tests = {
        f"{LEARNT}, {len(set(words))} words learnt": (maps, speakers, words, held_out),
        f"{OTHER}, 40 words not learnt": (*corpora[OTHER], tested),
    }
    found: dict[str, list[float]] = {name: [] for name in tests}
    for seed in options.seeds:
        student, losses = train("phrase", seed, (maps[~held_out], labels[~held_out]), options.epochs, None)
        print(f"seed {seed}: loss {losses[-1]:.3f} after {options.epochs} epochs of batches of {BATCH}", flush=True)
        for name, (of_maps, who, what, rows) in tests.items():
            found[name].append(word_eer(student.embed(of_maps[rows]), who[rows], what[rows]))
    print(f"\n{describe_machine(threads=1)}\n\n| test, speakers never heard | EER %, phrase |\n|---|---|")
    for name, values in found.items():
        print(f"| {name} | {spread(values)} |")


if __name__ == "__main__":
    main()
