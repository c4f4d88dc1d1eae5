#!/usr/bin/env python3
"""Verifies speakers: embeds each utterance of a trial list once, and scores the trials by cosine.

    python speaker_verification_cosine.py hparams/verification.yaml --data_folder=/data/VoxCeleb1 \
        --verification_file=/data/meta/veri_test2.txt --pretrain_path=results/bccmt_tiny/1986

Any key of the YAML can be set this way. Writes scores.txt, scores_norm.txt (with score normalisation),
results.json, score_histogram.png and det.png into the output folder. Embeddings are kept in `embeddings_folder`:
another run with the same model reads them there.
"""

import sys

from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb
from speechbrain_bccmt.evaluation.experiment import check_score_norm, print_results, read_rows, run_recipe
from speechbrain_bccmt.trials.read import read_trials


def verify(experiment):
    """Score the trials, and report."""
    hparams = experiment.hparams
    check_score_norm(hparams)
    trials = read_trials(hparams["verification_file"])
    prepared = prepare_voxceleb(
        hparams["data_folder"],
        hparams["save_folder"],
        hparams["verification_file"],
        dev_speakers=0,
        training=hparams["score_norm"] is not None,  # the cohort are training speakers
        progress=experiment.progress,
    )
    rows = read_rows(prepared.test_csv)
    embeddings = experiment.embed_trials(rows, trials)
    scores, files, n_cohort = experiment.score_by_cosine(trials, embeddings, prepared.train_csv)
    results = experiment.report(
        trials,
        scores,
        files,
        picture_of="cosine",
        audio_seconds=round(sum(float(row["duration"]) for row in rows), 2),
        cohort_speakers=n_cohort,
    )
    print_results(results, experiment.output_folder)


def main(arguments=None):
    """Run from the command line; return the exit code."""
    return run_recipe(verify, arguments)


if __name__ == "__main__":
    sys.exit(main())
