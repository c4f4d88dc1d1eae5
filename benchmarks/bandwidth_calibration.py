#!/usr/bin/env python3
"""Measures what the shipped model's calibration gains from knowing that a recording is narrow-band, as on a telephone.

    python benchmarks/bandwidth_calibration.py

Uses the trials of shipped_calibration.py (conditions on either side: whole, 1 s, 2 s, 3 s, noise, A-law telephone),
each corpus with the calibration fitted on all others: with length and number of utterances alone, and also with
"narrow", at most 5 kHz. Prints Cllr and actDCF of all trials, and of those with telephone speech on a side, and writes
results/bandwidth_calibration.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from card_speech import held_out_set, with_held_out
from recipe_runs import ROOT, describe_machine
from shipped_calibration import DrawnTrials, draw, figures, fit

P_TARGET = 0.05
MEASURES = {
    "length and number": ("log_duration", "log_utterances"),
    "and narrow": ("log_duration", "log_utterances", "narrow"),
}


def only(trials: DrawnTrials, names: tuple[str, ...]) -> DrawnTrials:
    """Keep only the named measures."""
    enrol, test = ({name: side[name] for name in names} for side in (trials.enrol, trials.test))
    return replace(trials, enrol=enrol, test=test)


def main() -> int:
    """Run from the command line; return the exit code."""
    from model_card import embeddings, load_tiny

    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    torch.set_num_threads(1)
    embed = partial(embeddings, "tiny", load_tiny(), vad=True)
    drawn = {name: draw(held_out_set(name), embed) for name in with_held_out()}
    found: dict = {}
    for name, trials in drawn.items():
        telephone = (trials.conditions == "telephone, A-law").any(axis=1)
        rows = np.arange(len(trials.scores))
        for title, names in MEASURES.items():
            fusion = fit(
                {other: only(some, names) for other, some in drawn.items() if other != name}, P_TARGET
            )
            llrs = fusion.llr(trials.scores, rows, rows, trials.test, trials.enrol)
            for kind, some in (("all", rows), ("telephone", telephone)):
                found.setdefault((name, kind), {})[title] = figures(llrs[some], trials.target[some], P_TARGET)
    for kind in ("all", "telephone"):
        own = [row for (name, which), row in found.items() if which == kind]
        found["mean", kind] = {
            title: {key: float(np.mean([row[title][key] for row in own])) for key in ("cllr", "act_dcf")}
            for title in MEASURES
        }
    result = {"machine": describe_machine(1), "rows": {", ".join(key): row for key, row in found.items()}}
    (ROOT / "results").mkdir(exist_ok=True)
    output = ROOT / "results" / "bandwidth_calibration.json"
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    titles = " | ".join(f"Cllr, actDCF: {title}" for title in MEASURES)
    print(f"{result['machine']}\n\n| corpus left out | trials | {titles} |")
    print("|---" * (2 + len(MEASURES)) + "|")
    for (name, kind), row in found.items():
        cells = " | ".join(f"{one['cllr']:.3f}, {one['act_dcf']:.3f}" for one in row.values())
        print(f"| {name} | {kind} | {cells} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
