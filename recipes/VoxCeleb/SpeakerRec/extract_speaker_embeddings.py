#!/usr/bin/env python3
"""Extracts the embedding of every utterance of a corpus, for later scoring runs and for other tools.

    python extract_speaker_embeddings.py hparams/extract.yaml --data_folder=/data/VoxCeleb1 \
        --verification_file=/data/meta/veri_test2.txt --pretrain_path=results/bccmt_tiny/1986

Any key of the YAML can be set this way. A run that was killed continues where it stopped. The embeddings are stored in
`embeddings_folder`, where the verification recipes find them if they are given the same folder, and in train.npz and
test.npz in the output folder, with `ids`, `embeddings` (utterances, size), `seconds` and `speakers`.
"""

import sys

import numpy as np

from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb
from speechbrain_bccmt.evaluation.experiment import read_rows, run_recipe
from speechbrain_bccmt.files import temporary_sibling


def extract(experiment):
    """Embed all utterances, and write the npz files."""
    hparams = experiment.hparams
    prepared = prepare_voxceleb(
        hparams["data_folder"],
        hparams["save_folder"],
        hparams["verification_file"] or (),
        dev_speakers=0,
        progress=experiment.progress,
    )
    for part, table in (("train", prepared.train_csv), ("test", prepared.test_csv)):
        rows = read_rows(table)
        if not rows:  # no trial list, no test utterances
            continue
        embeddings = experiment.embed(rows)
        path = experiment.output_folder / f"{part}.npz"
        with temporary_sibling(path) as temporary:
            np.savez(
                temporary,
                ids=np.array([row["ID"] for row in rows]),
                embeddings=embeddings,
                seconds=np.array([float(row["duration"]) for row in rows]),
                speakers=np.array([row["spk_id"] for row in rows]),
            )
            temporary.replace(path)
        print(f"{len(rows):,} embeddings of size {embeddings.shape[1]} are in {path}")


def main(arguments=None):
    """Run from the command line; return the exit code."""
    return run_recipe(extract, arguments)


if __name__ == "__main__":
    sys.exit(main())
