#!/usr/bin/env python3
"""Evaluates open-set identification: how often a stranger is given a name, by the number of names.

    python benchmarks/open_set.py [--fit open_set.json]

Names are enrolled with up to three utterances of a speaker of SPEECH_DATA; strangers and probes are speakers that the
shipped model never heard (it did hear most of the names, as there are not enough other speakers; with unheard names the
rates are the same where both can be measured, and printed for comparison). Each probe is one utterance, of one second
in google_speech_commands; names are drawn from its corpus. `before`: the threshold for two recordings. `after`: the
log-likelihood ratio and margin of `scoring.open_set`, fitted on the other corpora only, for 1 % of the strangers.
Prints a Markdown table, and writes results/open_set.json; --fit writes the thresholds fitted on all corpora.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
from everybody import shipped_model, utterances
from recipe_runs import ROOT, describe_machine

from speechbrain_bccmt.scoring.open_set import OpenSet
from speechbrain_bccmt.scoring.quality import quality_measures, side_quality
from speechbrain_bccmt.scoring.vectors import unit_length

SEED, DRAWS, ENROL, PROBES = 0, 6, 3, 6
CORPORA = ("google_speech_commands", "common_voice_mini", "speechocean762")
NAMES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1600)
ERRORS = (0.05, 0.02, 0.01)
MARGINS = (0.0, 0.5, 1.0, 1.5, 2.0)


def ratios(model, version: str, corpus: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log-likelihood ratios (names, probes), the row of each probe's own name, and a mask of unheard names."""
    found, rng = utterances(model, version, corpus), np.random.default_rng(SEED)
    vectors, rows, probes, own, unseen, enrolments = unit_length(found.embeddings), [], [], [], [], []
    for number, name in enumerate(np.unique(found.speakers)):
        order = rng.permutation(np.flatnonzero(found.speakers == name))
        kept = order[: max(1, min(ENROL, len(order) - 1))]
        rows.append(vectors[kept].mean(axis=0))
        enrolments.append(side_quality(found.seconds[kept], found.bandwidths[kept]))
        unseen.append(found.unseen[order[0]])
        if unseen[-1]:
            probes += list(order[len(kept) :][:PROBES])
            own += [number] * len(order[len(kept) :][:PROBES])
    scores = unit_length(np.stack(rows)) @ vectors[probes].T
    test = quality_measures(
        found.seconds[probes], counts=np.ones(len(probes)), bandwidths=found.bandwidths[probes]
    )
    enrol = {name: np.array([one[name] for one in enrolments]) for name in enrolments[0]}
    index = np.indices(scores.shape).reshape(2, -1)
    llrs = model.calibration.llr(scores.ravel(), index[0], index[1], test, enrol).reshape(scores.shape)
    return llrs, np.array(own), np.array(unseen)


def draw(llrs, own, names: int, among: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw the names of each probe: the two best ratios without its own name, and with it, and whether that is best."""
    strangers, known = [], []
    for probe in range(llrs.shape[1]):
        others = among[among != own[probe]]
        for _ in range(DRAWS):
            chosen = rng.choice(others, names, replace=False)
            best = np.sort(llrs[chosen, probe])[::-1]
            strangers.append([best[0], best[1] if names > 1 else -np.inf])
            best = np.sort(llrs[chosen[:-1], probe])[::-1]
            mine, next_ = llrs[own[probe], probe], best[0] if names > 1 else -np.inf
            known.append(
                [max(mine, next_), max(min(mine, next_), best[1] if names > 2 else -np.inf), mine > next_]
            )
    return np.array(strangers), np.array(known)


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--fit", metavar="FILE", help="write the thresholds here")
    options = parser.parse_args()
    model, version = shipped_model()
    before = model.calibration.at().llr_threshold
    drawn: dict[str, dict[int, tuple]] = {}
    unheard: dict[str, dict[int, np.ndarray]] = {}
    for corpus in CORPORA:
        llrs, own, unseen = ratios(model, version, corpus)
        rng, everybody = np.random.default_rng(SEED), np.arange(len(llrs))
        counts = [number for number in NAMES if number < len(llrs) - 1]
        drawn[corpus] = {number: draw(llrs, own, number, everybody, rng) for number in counts}
        some = np.flatnonzero(unseen)
        unheard[corpus] = {n: draw(llrs, own, n, some, rng)[0] for n in counts if n < len(some) - 1}
    rows = []
    for corpus in CORPORA:
        rest = [other for other in CORPORA if other != corpus]
        known = fit(drawn, rest)
        for number, (strangers, same) in drawn[corpus].items():
            row = {"corpus": corpus, "names": number, "before": rates(strangers, same, before, 0.0)}
            if number in unheard[corpus]:
                row["before, names unheard"] = float((unheard[corpus][number][:, 0] >= before).mean())
            threshold = max(before, known.threshold(number, 0.01))
            row["after"] = [rates(strangers, same, threshold, margin) for margin in MARGINS]
            rows.append(row)
    if options.fit:
        fit(drawn, list(CORPORA)).save(options.fit)
    result = {"machine": describe_machine(1), "seed": SEED, "margins": MARGINS, "rows": rows}
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results" / "open_set.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report(result))
    return 0


def fit(drawn: dict, corpora: list[str]) -> OpenSet:
    """Fit the thresholds on the strangers of some corpora."""
    numbers = sorted({number for corpus in corpora for number in drawn[corpus]})
    best = {n: [drawn[corpus][n][0][:, 0] for corpus in corpora if n in drawn[corpus]] for n in numbers}
    return OpenSet.fit(best, ERRORS, MARGIN, f"strangers to the names of {', '.join(corpora)}")


MARGIN = 1.0


def rates(strangers, known, threshold: float, margin: float) -> dict[str, float]:
    """Return the shares of strangers given a name, and of enrolled speakers given none or another's."""
    named = [(side[:, 0] >= threshold) & (side[:, 0] - side[:, 1] >= margin) for side in (strangers, known)]
    right = known[:, 2] > 0
    return {
        "stranger named": float(named[0].mean()),
        "known missed": float((~named[1]).mean()),
        "known confused": float((named[1] & ~right).mean()),
    }


def report(result: dict) -> str:
    """Lay out the results as a Markdown table."""
    lines = [f"{result['machine']}; seed {result['seed']}", ""]
    head = "names | strangers named, before | names unheard | missed | confused |"
    head += "".join(
        f" after, margin {margin}: named | missed | confused |" for margin in result["margins"][:3]
    )
    lines += [f"| corpus | {head}", "|---" * (head.count("|") + 1) + "|"]
    for row in result["rows"]:
        other = row.get("before, names unheard")
        cells = [row["corpus"], f"{row['names']:,}", f"{100 * row['before']['stranger named']:.1f} %"]
        cells.append("" if other is None else f"{100 * other:.1f} %")
        cells += [f"{100 * row['before'][key]:.1f} %" for key in ("known missed", "known confused")]
        for after in row["after"][:3]:
            cells += [f"{100 * value:.1f} %" for value in after.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
