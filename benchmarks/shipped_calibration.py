#!/usr/bin/env python3
"""Fits the calibration of the shipped model, and evaluates it on every corpus that it was not fitted on.

    python benchmarks/shipped_calibration.py calibration.json [--centred calibration_centred.json] [--p-target 0.05]

Trials are drawn from the held-out speakers of all corpora of SPEECH_DATA (held_out_speakers.csv): enrolments of one to
five utterances against one other, under the conditions CONDITIONS on each side, equally many from each corpus; only
speech is embedded and counted, as in `bccmt verify`. Writes the calibration fitted on all corpora, and prints actDCF
against minDCF and Cllr against minCllr for each corpus left out. `--centred` does the same after `bccmt adapt`, with 30
recordings of other speakers of each corpus (adaptation.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from card_speech import TrialSet, held_out_set, with_held_out

from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.scoring import act_dcf, cllr, min_cllr, min_dcf
from speechbrain_bccmt.scoring.cohorts import speaker_means
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion

CONDITIONS = ("whole", "1 s", "2 s", "3 s", "noise 10 dB", "telephone, A-law")
COUNTS = (1, 1, 2, 3, 5)  # of enrolment utterances
TRIALS = 5000  # per class and corpus


@dataclass(frozen=True)
class DrawnTrials:
    """Scores of trials of every length and number of enrolment utterances; conditions and quality of both sides."""

    scores: np.ndarray
    target: np.ndarray
    conditions: np.ndarray
    enrol: dict[str, np.ndarray]
    test: dict[str, np.ndarray]

    @classmethod
    def concatenate(cls, parts: list[DrawnTrials]) -> DrawnTrials:
        """Join the trials of several corpora."""
        sides = [
            {name: np.concatenate([getattr(part, side)[name] for part in parts]) for name in parts[0].test}
            for side in ("enrol", "test")
        ]
        columns = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("scores", "target", "conditions")
        )
        return cls(*columns, *sides)


def draw(data: TrialSet, embed: Callable) -> DrawnTrials:
    """Draw trials of a corpus; `embed` returns embeddings (N, size), seconds and bandwidths (N,) under a condition."""
    generator = np.random.default_rng(0)
    vectors, seconds, bands = zip(*(embed(data, condition) for condition in CONDITIONS), strict=True)
    members = {speaker: np.flatnonzero(data.speakers == speaker) for speaker in np.unique(data.speakers)}
    able = [speaker for speaker, rows in members.items() if len(rows) > 1]
    scores, conditions, enrolments, tests = [], [], [], []
    target = np.repeat([True, False], TRIALS)
    for same in target:
        speaker = able[generator.integers(len(able))]
        others = [name for name in members if name != speaker]
        claimed = members[speaker if same else others[generator.integers(len(others))]]
        test = generator.choice(members[speaker])
        enrol = generator.permutation(claimed[claimed != test])[: generator.choice(COUNTS)]
        kinds = generator.integers(len(CONDITIONS), size=2)
        side = speaker_means(vectors[kinds[0]][enrol], [""] * len(enrol))
        probe = vectors[kinds[1]][test]
        scores.append(side[0] @ probe / (np.linalg.norm(side[0]) * np.linalg.norm(probe)))
        conditions.append([CONDITIONS[kind] for kind in kinds])
        enrolments.append(side_quality(seconds[kinds[0]][enrol], bands[kinds[0]][enrol]))
        tests.append(side_quality(seconds[kinds[1]][[test]], bands[kinds[1]][[test]]))
    return DrawnTrials(np.array(scores), target, np.array(conditions), _columns(enrolments), _columns(tests))


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def fit(drawn: dict[str, DrawnTrials], p_target: float) -> QualityFusion:
    """Fit one calibration, weighting every corpus equally."""
    trials = DrawnTrials.concatenate(list(drawn.values()))
    rows = np.arange(len(trials.scores))
    name = "held-out speakers of " + ", ".join(drawn)
    return QualityFusion.fit(
        trials.scores,
        trials.target,
        rows,
        rows,
        trials.test,
        p_target,
        fitted_on=name,
        enrol_measures=trials.enrol,
    )


def leave_one_out(drawn: dict[str, DrawnTrials], p_target: float) -> dict[str, dict[str, float]]:
    """Evaluate the calibration fitted on all other corpora on each corpus."""
    table = {}
    for name, trials in drawn.items():
        fusion = fit({other: drawn[other] for other in drawn if other != name}, p_target)
        rows = np.arange(len(trials.scores))
        llrs = fusion.llr(trials.scores, rows, rows, trials.test, trials.enrol)
        table[name] = figures(llrs, trials.target, p_target)
    return table


def figures(llrs: np.ndarray, target: np.ndarray, p_target: float) -> dict[str, float]:
    """Compute costs and Cllr of ratios."""
    sides = llrs[target], llrs[~target]
    return {
        "act_dcf": float(act_dcf(*sides, p_target)),
        "min_dcf": float(min_dcf(*sides, p_target)[0]),
        "cllr": float(cllr(*sides)),
        "min_cllr": float(min_cllr(*sides)),
    }


def main() -> int:
    """Run from the command line; return the exit code."""
    from model_card import embeddings, load_tiny

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("output", help="file to write")
    parser.add_argument("--centred", help="file to write, fitted after bccmt adapt")
    parser.add_argument("--p-target", type=float, default=0.05)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tiny = load_tiny()
    embed = partial(embeddings, "tiny", tiny, vad=True)
    drawn = {options.output: {name: draw(held_out_set(name), embed) for name in with_held_out()}}
    if options.centred:
        from adaptation import corpus_centre, without

        model = GraphVerifier.load("tiny", threads=1)
        drawn[options.centred] = {
            name: draw(held_out_set(name), without(corpus_centre(model, name), embed)) for name in with_held_out()
        }
    for path, trials in drawn.items():
        fit(trials, options.p_target).save(path)
        print(path)
        for name, row in leave_one_out(trials, options.p_target).items():
            print(name, " ".join(f"{key} {value:.3f}" for key, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
