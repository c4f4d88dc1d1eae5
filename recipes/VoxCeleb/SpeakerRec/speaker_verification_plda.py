#!/usr/bin/env python3
"""Verifies speakers by PLDA, fitted on the embeddings of the training speakers.

    python speaker_verification_plda.py hparams/verification_plda.yaml \
        --data_folder="[/data/VoxCeleb1, /data/VoxCeleb2]" --verification_file=/data/meta/veri_test2.txt \
        --pretrain_path=results/bccmt_tiny/1986

Any key of the YAML can be set this way. Writes scores.txt (of the PLDA), plda.npz, results.json,
score_histogram.png and det.png into the output folder; all results give the cosine beside the PLDA. Embeddings
are kept in `embeddings_folder`: another run with the same model reads them there.
"""

import sys

from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb
from speechbrain_bccmt.evaluation.experiment import print_results, read_rows, run_recipe
from speechbrain_bccmt.scoring import cosine_scores
from speechbrain_bccmt.scoring.cohorts import choose_cohort
from speechbrain_bccmt.scoring.plda import PLDA
from speechbrain_bccmt.trials.read import read_trials


def verify(experiment):
    """Fit the PLDA, score the trials, and report."""
    hparams = experiment.hparams
    trials = read_trials(hparams["verification_file"])
    prepared = prepare_voxceleb(
        hparams["data_folder"],
        hparams["save_folder"],
        hparams["verification_file"],
        dev_speakers=0,
        progress=experiment.progress,
    )
    chosen = choose_cohort(
        read_rows(prepared.train_csv),
        hparams["training_speakers"],
        hparams["training_utterances"],
        hparams["seed"],
    )
    with experiment.timed("training embeddings"):
        training = experiment.embed(chosen)
    with experiment.timed("fitting"):
        plda = PLDA.fit(
            training,
            [row["spk_id"] for row in chosen],
            lda_dim=hparams["lda_dim"],
            n_iterations=hparams["plda_iterations"],
            fitted_on=str(hparams["data_folder"]),
        )
    plda.save(experiment.output_folder / "plda.npz")

    embeddings = experiment.embed_trials(read_rows(prepared.test_csv), trials)
    with experiment.timed("scoring"):
        scores = {
            "cosine": cosine_scores(embeddings, trials.enrol, trials.test),
            "PLDA": plda.scores(embeddings, trials.enrol, trials.test),
        }
    results = experiment.report(
        trials,
        scores,
        {"PLDA": "scores.txt"},
        picture_of="PLDA",
        plda_speakers=plda.n_speakers,
        plda_utterances=plda.n_utterances,
    )
    print_results(results, experiment.output_folder)


def main(arguments=None):
    """Run from the command line; return the exit code."""
    return run_recipe(verify, arguments)


if __name__ == "__main__":
    sys.exit(main())
