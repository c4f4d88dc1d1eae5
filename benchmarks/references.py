#!/usr/bin/env python3
"""Compares ways to score a name with several reference embeddings: by their mean, or by the best of them.

    python benchmarks/references.py

Each held-out speaker of a corpus (held_out_speakers.csv) is enrolled with up to three unchanged utterances, labelled
headset, and one, two or three over a telephone line, labelled phone, or one in a reverberant room; probes are the
speaker's other utterances, unchanged, over the telephone and in the room, and those of the corpus' other speakers.
Rules: the mean of all utterances; the mean of the labels' means; the best of the labels' means; the best utterance.
Prints EER and minDCF over all probes of a corpus, and writes results/references.json.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from card_speech import held_out_set, with_held_out
from model_card import embeddings
from recipe_runs import ROOT, describe_machine

from speechbrain_bccmt.scoring import equal_error_rate, min_dcf
from speechbrain_bccmt.scoring.vectors import unit_length

SEED, SPLITS = 0, 5
SOUNDS = {"headset": "whole", "phone": "telephone, A-law", "room": "reverberation"}
RULES = ("mean of utterances", "mean of labels", "best label", "best utterance")


def rules(references: dict[str, np.ndarray], probes: np.ndarray) -> np.ndarray:
    """Score unit probes (p, d) against the unit references of each label: (rules, p)."""
    means = unit_length(np.stack([rows.mean(axis=0) for rows in references.values()]))
    everything = np.concatenate(list(references.values()))
    return np.stack(
        [
            probes @ unit_length(everything.mean(axis=0)[None])[0],
            probes @ unit_length(means.mean(axis=0)[None])[0],
            (probes @ means.T).max(axis=1),
            (probes @ everything.T).max(axis=1),
        ]
    )


def judge(name: str, embed) -> dict[str, dict[str, float]]:
    """Score every probe of a corpus with every rule."""
    data = held_out_set(name)
    vectors = {
        label: unit_length(embeddings("tiny", embed, data, sound, vad=True)[0])
        for label, sound in SOUNDS.items()
    }
    rng, scores, targets = np.random.default_rng(SEED), [], []
    able = [who for who in np.unique(data.speakers) if (data.speakers == who).sum() >= 4]
    for speaker in able:
        for _ in range(SPLITS):
            own = rng.permutation(np.flatnonzero(data.speakers == speaker))
            held = own[: min(6, len(own) - 1)]
            near = rng.integers(1, min(3, len(held) - 1) + 1)
            references = {"headset": vectors["headset"][held[:near]]}
            other = ("phone", "room")[rng.integers(2)]
            references[other] = vectors[other][held[near : near + rng.integers(1, 4)]]
            rest = np.setdiff1d(np.arange(len(data.speakers)), held)
            for label in SOUNDS:
                scores.append(rules(references, vectors[label][rest]))
                targets.append(data.speakers[rest] == speaker)
    scores, target = np.concatenate(scores, axis=1), np.concatenate(targets)
    return {
        rule: {
            "eer": float(equal_error_rate(row[target], row[~target])[0]),
            "min_dcf": float(min_dcf(row[target], row[~target], 0.05)[0]),
        }
        for rule, row in zip(RULES, scores, strict=True)
    }


def main() -> int:
    """Run from the command line; return the exit code."""
    import torch
    from model_card import load_tiny

    torch.set_num_threads(1)
    tiny = load_tiny()
    found = {name: judge(name, tiny) for name in with_held_out() if name != "arabic_speech_commands"}
    result = {"machine": describe_machine(1), "seed": SEED, "corpora": found}
    output = ROOT / "results" / "references.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['machine']}; seed {SEED}\n\n| corpus | " + " | ".join(RULES) + " |")
    print("|---" * (1 + len(RULES)) + "|")
    for name, row in found.items():
        cells = (f"{100 * row[rule]['eer']:.2f} %, {row[rule]['min_dcf']:.3f}" for rule in RULES)
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
