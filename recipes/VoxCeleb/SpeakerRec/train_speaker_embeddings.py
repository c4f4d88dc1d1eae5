#!/usr/bin/env python3
"""Trains speaker embeddings, with or without a teacher.

    python train_speaker_embeddings.py hparams/bccmt.yaml --data_folder=/data/VoxCeleb2 \
        --verification_file=/data/meta/veri_test2.txt --noise_folder=/data/musan \
        --rir_folder=/data/RIRS_NOISES

Any key of the YAML can be set this way. A repeated run resumes from the last checkpoint.
"""

import sys

from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb
from speechbrain_bccmt.training.recipe import run_training


def prepare(hparams):
    """Write the CSV files and the dev trials."""
    prepare_voxceleb(
        hparams["data_folder"],
        hparams["save_folder"],
        hparams["verification_file"] or (),
        dev_speakers=hparams["dev_speakers"],
        dev_trials=hparams["dev_trials"],
        vad=hparams["vad"],
        unlabelled_folders=hparams.get("unlabelled_folder") or (),
    )


def main(arguments=None):
    """Run from the command line; return the exit code."""
    return run_training(prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
