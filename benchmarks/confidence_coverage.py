#!/usr/bin/env python3
"""Counts, in a simulation, how often the 95 % intervals of the bootstrap over speakers contain the true figure.

    python benchmarks/confidence_coverage.py [--runs 400 300 120]

Each simulated speaker's target scores lie around 3 + N(0, 0.7), the non-target scores around the sum of two
N(0, 0.35), all with a deviation of 1: 12 target trials per speaker, and all ordered pairs. 200 resamples, seeds 0 to
the number of runs. For comparison: plain percentiles, and for the EER the bootstrap over trials. Prints a table and
writes results/confidence_coverage/results.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.scoring import equal_error_rate, min_cllr, min_dcf
from speechbrain_bccmt.scoring.bootstrap import confidence_intervals, resample

SPEAKERS = (20, 50, 100)
PER_SPEAKER, SPREAD, DISTANCE, P_TARGET = 12, 0.7, 3.0, 0.05
OPTIONS = {"measures": ("eer", "min_dcf", "min_cllr"), "p_target": P_TARGET, "n_resamples": 200}
RESULTS = Path(__file__).resolve().parents[1] / "results" / "confidence_coverage" / "results.json"


def true_figures() -> dict[str, float]:
    """Estimate the figures for infinitely many speakers, on 2 million independent trials per class."""
    generator = np.random.default_rng(99)
    targets = generator.normal(DISTANCE, np.hypot(1, SPREAD), 2_000_000)
    nontargets = generator.normal(0, np.sqrt(1 + 2 * (SPREAD / 2) ** 2), 2_000_000)
    return {
        "eer": equal_error_rate(targets, nontargets)[0],
        "min_dcf": min_dcf(targets, nontargets, P_TARGET)[0],
        "min_cllr": min_cllr(targets, nontargets),
    }


def draw(generator: np.random.Generator, n_speakers: int):
    """Draw speakers and the scores of their trials."""
    own, other = generator.normal(0, SPREAD, n_speakers), generator.normal(0, SPREAD / 2, n_speakers)
    enrol, test = np.divmod(np.arange(n_speakers**2), n_speakers)
    same = np.repeat(np.flatnonzero(enrol == test), PER_SPEAKER)
    chosen = np.concatenate([same, np.flatnonzero(enrol != test)])
    enrol, test = enrol[chosen], test[chosen]
    target = enrol == test
    centre = np.where(target, DISTANCE + own[enrol], other[enrol] + other[test])
    return generator.normal(size=len(enrol)) + centre, target, enrol, test


def over_trials(scores, target, seed: int) -> np.ndarray:
    """Return the percentiles of the EER from a bootstrap over trials."""
    generator = np.random.default_rng(seed)
    sides = scores[target], scores[~target]
    rates = [equal_error_rate(*(generator.choice(side, side.size) for side in sides))[0] for _ in range(200)]
    return np.quantile(rates, (0.025, 0.975))


def main() -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs=len(SPEAKERS), default=[400, 300, 120], help="for each row")
    args = parser.parse_args()
    truth = true_figures()
    rows = []
    for n_speakers, n_runs in zip(SPEAKERS, args.runs, strict=True):
        generator = np.random.default_rng(n_speakers)
        held: dict[str, list[bool]] = {}
        for seed in tqdm(range(n_runs), desc=f"{n_speakers} speakers", unit="run"):
            trials = draw(generator, n_speakers)
            intervals = confidence_intervals(*trials, seed=seed, **OPTIONS)
            samples = resample(*trials, seed=seed, **OPTIONS)[1]
            for name, true in truth.items():
                low, high = np.quantile(samples[name], (0.025, 0.975))
                held.setdefault(name, []).append(intervals[name].low <= true <= intervals[name].high)
                held.setdefault(f"{name} percentiles", []).append(bool(low <= true <= high))
            low, high = over_trials(*trials[:2], seed)
            held.setdefault("eer over trials", []).append(bool(low <= truth["eer"] <= high))
        coverage = {name: float(np.mean(values)) for name, values in held.items()}
        rows.append({"speakers": n_speakers, "runs": n_runs, "coverage": coverage})
    names = list(rows[0]["coverage"])
    print("| speakers | runs | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 2))
    for row in rows:
        cells = " | ".join(f"{100 * row['coverage'][name]:.0f} %" for name in names)
        print(f"| {row['speakers']} | {row['runs']} | {cells} |")
    with temporary_sibling(RESULTS) as temporary:
        temporary.write_text(json.dumps({"truth": truth, "rows": rows}, indent=2) + "\n", encoding="utf-8")
        temporary.replace(RESULTS)


if __name__ == "__main__":
    main()
