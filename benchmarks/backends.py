#!/usr/bin/env python3
"""Scores one trained model by cosine, adaptive s-norm and PLDA, with and without calibration, and plots the results.

    python benchmarks/backends.py results/speechocean762/tiny_kd_1 [--pictures docs/pictures]

MODEL is a training folder of benchmarks/speechocean762.py. Cohort and PLDA use the training speakers. Calibration is
fitted on trials among one half of the test speakers and evaluated on trials among the other half, and vice versa; a
second one is fitted on the training's dev list, to show whether it carries over. 95 % intervals use a bootstrap over
speakers. Prints two tables and writes pictures and results.json into MODEL/backends.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from recipe_runs import describe_machine, run_script, speechocean762

from speechbrain_bccmt.evaluation.calibration_plots import plot_calibration
from speechbrain_bccmt.evaluation.plots import plot_eer_by_duration
from speechbrain_bccmt.evaluation.report import (
    OperatingPoint,
    draw,
    evaluate_system,
    format_evaluation,
    write_results,
)
from speechbrain_bccmt.inference.embedding_files import read_embeddings
from speechbrain_bccmt.scoring import Calibration, act_dcf, cllr, cosine_scores, min_cllr, min_dcf, s_norm
from speechbrain_bccmt.scoring.cohorts import speaker_means
from speechbrain_bccmt.scoring.plda import PLDA
from speechbrain_bccmt.trials.read import read_trials
from speechbrain_bccmt.trials.trial_list import trial_speakers

TOP_N = 50
CURVES = "cosine", "s-norm, top 50", "PLDA"


def split_by_speaker(enrol: np.ndarray, test: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the trials among one half of the speakers, and those among the other."""
    speakers = np.unique(np.concatenate([enrol, test]))
    first = np.isin(speakers, np.random.default_rng(seed).permutation(speakers)[: len(speakers) // 2])
    of_enrol, of_test = (first[np.searchsorted(speakers, side)] for side in (enrol, test))
    return of_enrol & of_test, ~of_enrol & ~of_test


def crossed(scores: np.ndarray, target: np.ndarray, halves) -> np.ndarray:
    """Calibrate the trials of each half on the other; trials between the halves are NaN."""
    llrs = np.full(len(scores), np.nan)
    for fitted, evaluated in (halves, halves[::-1]):
        llrs[evaluated] = Calibration.fit(scores[fitted & target], scores[fitted & ~target]).llr(
            scores[evaluated]
        )
    return llrs


def calibration_row(name: str, llrs: np.ndarray, target: np.ndarray) -> str:
    """Return a row of the calibration table."""
    sides = llrs[target], llrs[~target]
    figures = [min_dcf(*sides)[0], act_dcf(*sides), min_cllr(*sides), cllr(*sides)]
    return f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |"


def main() -> None:
    """Extract, score, evaluate and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--pictures", type=Path, help="copy the pictures here as well")
    options = parser.parse_args()
    folder = options.model.resolve() / "backends"
    data = speechocean762()
    recipe = {"pretrain_path": str(options.model.resolve()), "output_folder": str(folder), "device": "cpu"}
    run_script("extract_speaker_embeddings.py", "extract", {**data, **recipe}, folder)
    train, test = (read_embeddings(folder / f"{part}.npz") for part in ("train", "test"))

    trials = read_trials(data["verification_file"])
    target, rows = trials.target, test.rows_of(trials.ids)
    dev = read_trials(options.model / "save" / "dev_trials.txt")
    dev_rows = train.rows_of(dev.ids)
    # The dev speakers are left out of cohort and PLDA: their trials are scored as well.
    held_out = {name.split("/")[0] for name in dev.ids}
    kept = [number for number, name in enumerate(train.ids) if name.split("/")[0] not in held_out]
    of_training, speakers = train.vectors[kept], [train.ids[number].split("/")[0] for number in kept]
    cohort, plda = speaker_means(of_training, speakers), PLDA.fit(of_training, speakers)

    def score(vectors, of) -> dict[str, np.ndarray]:
        sides = vectors, of.enrol, of.test
        cosine = cosine_scores(*sides)
        kinds = (cosine, s_norm(cosine, *sides, cohort, top_n=TOP_N), plda.scores(*sides))
        return {
            name: np.asarray(values, dtype=np.float64) for name, values in zip(CURVES, kinds, strict=True)
        }

    systems, on_dev = score(test.vectors[rows], trials), score(train.vectors[dev_rows], dev)
    sides, point = trial_speakers(trials), OperatingPoint()
    figures = {
        name: evaluate_system(scores, target, point, speakers=sides) for name, scores in systems.items()
    }
    print(f"{describe_machine(threads=1)}\n\n{format_evaluation(figures, point)}\n")

    halves = split_by_speaker(*sides)
    within = halves[0] | halves[1]
    print("| calibrated | minDCF | actDCF | minCllr | Cllr |\n|---|---|---|---|---|")
    curves = {}
    for name, scores in systems.items():
        llrs = crossed(scores, target, halves)[within]
        print(calibration_row(f"{name}, on other test speakers", llrs, target[within]))
        curves[name] = llrs[target[within]], llrs[~target[within]]
        from_dev = Calibration.fit(on_dev[name][dev.target], on_dev[name][~dev.target], fitted_on="dev")
        print(calibration_row(f"{name}, on the dev list", from_dev.llr(scores), target))
    title = "speechocean762, " + options.model.name
    paths = draw(folder, systems, target, point, {}, title)
    seconds = test.seconds[rows]
    durations = np.minimum(seconds[trials.enrol], seconds[trials.test])
    for suffix in (".png", ".svg"):
        paths += [folder / f"calibration{suffix}", folder / f"eer_by_duration{suffix}"]
        plot_calibration(
            curves, paths[-2], p_target=point.p_target, title=f"{title}, calibrated on other speakers"
        )
        plot_eer_by_duration(systems, durations, target, paths[-1], title=title)
    write_results(folder / "results.json", {"systems": figures, "operating_point": vars(point)})
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if path.suffix == ".png":
                shutil.copy(path, options.pictures / path.name)


if __name__ == "__main__":
    main()
