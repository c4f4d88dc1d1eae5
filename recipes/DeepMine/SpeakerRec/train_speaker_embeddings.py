#!/usr/bin/env python3
"""Trains embeddings for text-dependent verification on DeepMine Part 1, with or without a teacher.

    python train_speaker_embeddings.py hparams/token.yaml --data_folder=/data/DeepMine

Any key of the YAML can be set this way. A repeated run resumes from the last checkpoint.
"""

import sys

from speechbrain_bccmt.corpora.deepmine import prepare_deepmine
from speechbrain_bccmt.training.recipe import prepare_phrase_training, run_training


def prepare(hparams):
    """Write the CSV files and the dev trials."""
    prepare_phrase_training(prepare_deepmine, hparams)


def main(arguments=None):
    """Run from the command line; return the exit code."""
    return run_training(prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
