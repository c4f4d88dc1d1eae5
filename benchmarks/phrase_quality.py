#!/usr/bin/env python3
"""Tests whether the fusion of voice and phrase gains from quality measures of the recordings.

    python benchmarks/phrases.py --runs voice_phrase-none --epochs 30 --output results/phrases
    python benchmarks/phrase_quality.py results/phrases/voice_phrase_none_*

For each run, a logistic regression is fitted on trials of six of the 12 test speakers of arabic_speech_commands
(SPEECH_DATA) and scores those of the other six, ten times over: both cosines; with the seconds of speech of the shorter
and of the longer side; also with their narrow bands. Prints pooled EER next to that of the single cosine of both parts.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from phrases import spread
from recipe_runs import describe_machine, speech_corpus

from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.scoring import cosine_scores, equal_error_rate
from speechbrain_bccmt.scoring.logistic import fit_log_likelihood_ratio
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.scoring.vectors import unit_length
from speechbrain_bccmt.trials.read import read_trials
from speechbrain_bccmt.trials.trial_list import speaker_of

CORPUS, PHRASE_WEIGHT, DRAWS = "arabic_speech_commands", 0.75, 10


def embeddings(run: Path, ids: list[str]) -> np.ndarray:
    """Read the embeddings written by the verification of a run."""
    kept = {}
    for path in sorted(run.glob("verification/embeddings/*/*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            names = [row["ID"] for row in csv.DictReader(file)]
        kept |= dict(zip(names, np.load(path.with_suffix(".npy")), strict=True))
    return np.stack([kept[name] for name in ids])


def main() -> None:
    """Fit, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of benchmarks/phrases.py")
    options = parser.parse_args()
    meta = speech_corpus(CORPUS) / "meta"
    trials = read_trials(meta / "trials.txt", enrolment=meta / "model_enrollment.txt")
    files = find_utterances([str(speech_corpus(CORPUS))])
    model = GraphVerifier.load("tiny", threads=1)
    found = [model.embed_file(files[name].path) for name in trials.ids]
    seconds = np.array([max(0.05, one.speech_seconds) for one in found])
    bands = np.array([one.bandwidth for one in found])
    enrolments = [list(one.utterances) for one in trials.models]
    sides = [side_quality(seconds[rows], bands[rows]) for rows in enrolments]
    tests = [side_quality(seconds[[row]], bands[[row]]) for row in range(len(found))]
    enrol, test = np.asarray(trials.enrol), np.asarray(trials.test)
    quality = {}
    for name in ("log_duration", "narrow"):
        both = np.array([one[name] for one in sides])[enrol], np.array([one[name] for one in tests])[test]
        quality[name] = [np.minimum(*both), np.maximum(*both)]
    speakers = np.array([speaker_of(name) for name in trials.ids])
    claimed, heard = np.array([speakers[rows[0]] for rows in enrolments])[enrol], speakers[test]
    table: dict[str, list[float]] = {}
    for run in options.runs:
        parts = np.split(embeddings(run, trials.ids), [len(found[0].embedding)], axis=1)
        voice, phrase = (np.asarray(cosine_scores(part, enrol, test, trials.models)) for part in parts)
        joined = [weight**0.5 * unit_length(part) for weight, part in zip((1, PHRASE_WEIGHT), parts, strict=True)]
        one = np.asarray(cosine_scores(np.concatenate(joined, axis=1), enrol, test, trials.models))
        columns = {"one cosine": [one], "two cosines": [voice, phrase]}
        columns["and seconds"] = columns["two cosines"] + quality["log_duration"]
        columns["and seconds and band"] = columns["and seconds"] + quality["narrow"]
        for name, features in columns.items():
            rates = _halves(np.stack(features, axis=1), trials, claimed, heard)
            table.setdefault(name, []).append(np.mean(rates))
    spoken = np.quantile(seconds, [0.05, 0.5])
    print(f"{describe_machine(1)}; seconds of speech, 5 % and half of the recordings below: {spoken.round(2)}")
    print("| fusion | pooled EER % |\n|---|---|")
    for name, values in table.items():
        print(f"| {name} | {spread(values)} |")


def _halves(features: np.ndarray, trials, claimed: np.ndarray, heard: np.ndarray) -> list[float]:
    """Fit on trials of half of the speakers, and return the EER in % of those of the other half, several times."""
    rng, names, found = np.random.default_rng(0), np.unique(heard), []
    for _ in range(DRAWS):
        half = rng.permutation(names)[: len(names) // 2]
        inside = np.isin(claimed, half), np.isin(heard, half)
        own, others = inside[0] & inside[1], ~inside[0] & ~inside[1]
        weights, _ = fit_log_likelihood_ratio(features[own].astype(np.float64), trials.target[own], 0.01, 1, 1)
        scores, target = features[others] @ weights, trials.target[others]
        found.append(100 * equal_error_rate(scores[target], scores[~target])[0])
    return found


if __name__ == "__main__":
    main()
