#!/usr/bin/env python3
"""Verifies speakers and their phrases on DeepMine Part 1: cosine scores against models of several takes.

    python speaker_verification_cosine.py hparams/verification_phrases.yaml --data_folder=/data/DeepMine \
        --pretrain_path=results/token_class/1986

Any key of the YAML can be set this way. Writes scores.txt, results.json with the error rates by type of trial,
score_histogram.png and det.png into the output folder.
"""

import sys
from functools import partial

from speechbrain_bccmt.corpora.deepmine import prepare_deepmine
from speechbrain_bccmt.evaluation.experiment import run_recipe, verify_phrases


def main(arguments=None):
    """Run from the command line; return the exit code."""
    return run_recipe(partial(verify_phrases, prepare=prepare_deepmine), arguments)


if __name__ == "__main__":
    sys.exit(main())
