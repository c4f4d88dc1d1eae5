#!/usr/bin/env python3
"""Judges whether the calibration of the shipped model should know up to which frequency a recording holds sound.

    python benchmarks/bandwidth_calibration.py

The trials of shipped_calibration.py (conditions on either side: whole, 1 s, 2 s, 3 s, noise, A-law telephone), each
corpus judged by the calibration fitted on all others: with length and number of utterances alone; with the logarithm of
the bandwidth (`audio.levels.bandwidth`) as well; with "narrow", at most 5 kHz, as well. Prints Cllr and actDCF of all
trials, and of those in which a side is telephone speech, and writes results/bandwidth_calibration.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

import numpy as np
import torch
from card_speech import RATE, held_out_set, read, with_held_out
from recipe_runs import ROOT, describe_machine
from shipped_calibration import DrawnTrials, draw, fit
from tqdm import tqdm

from speechbrain_bccmt.audio.levels import bandwidth
from speechbrain_bccmt.inference.results import NARROW_HZ
from speechbrain_bccmt.scoring import act_dcf, cllr, min_cllr, min_dcf

P_TARGET = 0.05
EXTRA = {"length and number": (), "and log bandwidth": ("log_band",), "and narrow": ("narrow",)}
BASE = ("log_duration", "log_utterances")


def bands(data, condition: str) -> dict[str, np.ndarray]:
    """Measure the band of each utterance of a corpus under a condition, and whether it is a telephone's."""
    found, narrow = [], float(condition.startswith("telephone"))
    for path in tqdm(data.paths, f"{data.name}, {condition}", disable=None):
        found.append(bandwidth(np.asarray(read(path, condition)), RATE))
    band = np.array(found)
    telephone = np.full(len(band), narrow)
    return {
        "log_band": np.log(band / RATE * 2),
        "narrow": (band <= NARROW_HZ).astype(float),
        "telephone": telephone,
    }


def only(trials: DrawnTrials, names: tuple[str, ...]) -> DrawnTrials:
    """Keep some measures."""
    sides = ({name: side[name] for name in (*BASE, *names)} for side in (trials.enrol, trials.test))
    return DrawnTrials(trials.scores, trials.target, *sides)


def figures(llrs: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Compute Cllr and the detection cost of ratios."""
    sides = llrs[target], llrs[~target]
    return {
        "cllr": float(cllr(*sides)),
        "min_cllr": float(min_cllr(*sides)),
        "act_dcf": float(act_dcf(*sides, P_TARGET)),
        "min_dcf": float(min_dcf(*sides, P_TARGET)[0]),
    }


def main() -> int:
    """Run from the command line; return the exit code."""
    from model_card import embeddings, load_tiny

    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    torch.set_num_threads(1)
    embed = partial(embeddings, "tiny", load_tiny(), vad=True)
    drawn = {name: draw(held_out_set(name), embed, bands) for name in with_held_out()}
    result: dict = {"machine": describe_machine(1), "corpora": {}}
    for name, trials in drawn.items():
        telephone = (trials.enrol["telephone"] + trials.test["telephone"]) > 0
        rows = np.arange(len(trials.scores))
        for title, names in EXTRA.items():
            fusion = fit(
                {other: only(some, names) for other, some in drawn.items() if other != name}, P_TARGET
            )
            llrs = fusion.llr(trials.scores, rows, rows, trials.test, trials.enrol)
            result["corpora"].setdefault(name, {})[title] = {
                "all": figures(llrs, trials.target),
                "telephone": figures(llrs[telephone], trials.target[telephone]),
            }
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results" / "bandwidth_calibration.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8"
    )
    print(
        f"{result['machine']}\n\n| corpus left out | trials | "
        + " | ".join(f"Cllr, actDCF: {title}" for title in EXTRA)
        + " |"
    )
    print("|---" * (2 + len(EXTRA)) + "|")
    for name, titles in result["corpora"].items():
        for kind in ("all", "telephone"):
            cells = (f"{row[kind]['cllr']:.3f}, {row[kind]['act_dcf']:.3f}" for row in titles.values())
            print(f"| {name} | {kind} | {' | '.join(cells)} |")
    means = {
        (title, kind, key): float(np.mean([row[title][kind][key] for row in result["corpora"].values()]))
        for title in EXTRA
        for kind in ("all", "telephone")
        for key in ("cllr", "act_dcf")
    }
    for kind in ("all", "telephone"):
        cells = (f"{means[title, kind, 'cllr']:.3f}, {means[title, kind, 'act_dcf']:.3f}" for title in EXTRA)
        print(f"| mean | {kind} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
