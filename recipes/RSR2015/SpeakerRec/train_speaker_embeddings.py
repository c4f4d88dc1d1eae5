#!/usr/bin/env python3
"""Trains embeddings for text-dependent verification on RSR2015 Part II, with or without a teacher.

    python train_speaker_embeddings.py hparams/token.yaml --data_folder=/data/RSR2015

Any key of the YAML can be set in this way. Started again, it resumes from the last checkpoint.
"""

import sys

from speechbrain_bccmt.corpora.preparation import prepare_from_hparams
from speechbrain_bccmt.corpora.rsr2015 import prepare_rsr2015
from speechbrain_bccmt.training.recipe import run_training


def prepare(hparams):
    """Write the CSV files and the dev trials."""
    options = {key: hparams[key] for key in ("class_of", "dev_speakers", "dev_trials")}
    prepare_from_hparams(prepare_rsr2015, hparams, **options)


def main(arguments=None):
    """Run from the command line; give the exit code."""
    return run_training(prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
