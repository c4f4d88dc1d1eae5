#!/usr/bin/env python3
"""Runs the whole pipeline on a small synthetic corpus: `make demo`.

Makes the demo corpus; verifies its held-out speakers with the shipped model; trains a Base teacher, Tiny alone, and
Tiny guided by the teacher's attention maps, with the VoxCeleb recipe's scripts; verifies with each; and reports. A
repeated run skips finished steps. The corpus is synthetic and the budget is minutes: the figures show that the pipeline
works, not how good the models can be.

    python run_demo.py [--output_folder=results/demo] [--epochs 5 6 6]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from demo_report import SHIPPED, SYSTEMS, System, make_report, read_results
from demo_steps import ROOT, exit_code, run_step

from speechbrain_bccmt.demo_corpus.sentences import DemoCorpusSettings, make_demo_corpus
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.models import DEFAULT

# Short crops and small batches: many steps in a few minutes.
TRAINING = {
    "crop_seconds": 1.6,
    "batch_size": 32,
    "cache_audio": True,
    "dev_speakers": 8,
    "dev_trials": 2000,
    "warmup_epochs": 1,
}


def train(system: System, epochs: int, corpus: Path, output: Path) -> float:
    """Train a system with the recipe's training script; return its time in seconds."""
    options = {
        "data_folder": corpus,
        "verification_file": corpus / "meta" / "veri_test.txt",
        "output_folder": output / system.name,
        "size": system.size,
        "number_of_epochs": epochs,
        "margin_start_epoch": epochs // 4,
        "margin_end_epoch": epochs // 2,
        # With eight dev speakers, the best dev EER may fall on an epoch before the learning rate has decayed.
        "valid_interval": epochs,
        **TRAINING,
    }
    if system.teacher:
        options["teacher_source"] = output / system.teacher
    arguments = ["train_speaker_embeddings.py", f"hparams/{system.training}.yaml"]
    arguments += [f"--{key}={value}" for key, value in options.items()]
    return run_step(f"training {system.title}", "VoxCeleb", arguments, output / system.name)


def verify(name: str, title: str, source: str | Path, corpus: Path, output: Path) -> None:
    """Verify the held-out speakers with the model at `source`, using the recipe's verification script."""
    folder = output / f"verification_{name}"
    options = {
        "data_folder": corpus,
        "verification_file": corpus / "meta" / "veri_test.txt",
        "pretrain_path": source,
        "output_folder": folder,
        # After one or two epochs the cohort's scores may have no spread, and cannot normalise others.
        "score_norm": "null",
    }
    arguments = ["speaker_verification_cosine.py", "hparams/verification.yaml"]
    arguments += [f"--{key}={value}" for key, value in options.items()]
    run_step(f"verifying with {title}", "VoxCeleb", arguments, folder)


def show_shipped(corpus: Path, output: Path) -> None:
    """Verify two pairs of recordings, then the whole trial list, with the shipped model."""
    model = SpeakerVerification.from_hparams()
    lines = [
        line.split() for line in (corpus / "meta" / "veri_test.txt").read_text(encoding="utf-8").splitlines()
    ]
    print("With the model that comes with the package, before anything is trained:")
    for label in "10":
        _, *names = next(line for line in lines if line[0] == label)
        start = time.monotonic()
        verdict = model.verify_files(*(corpus / "wav" / name for name in names))
        decision = "same speaker" if verdict.decision else "different speakers"
        print(
            f"  bccmt verify {' '.join(names)}: {decision}, score {float(verdict.score):.2f}, threshold "
            f"{verdict.threshold:.2f} ({1000 * (time.monotonic() - start):.0f} ms)"
        )
    verify(*SHIPPED, DEFAULT, corpus, output)
    found = read_results(output, SHIPPED[0])
    print(f"  EER {100 * found['scores']['cosine']['eer']:.2f} % on {found['n_trials']:,} trials")


def run_demo(output: Path, settings: DemoCorpusSettings, epochs: list[int]) -> None:
    """Make the corpus, train and verify each system, and report."""
    start = time.monotonic()
    output = output.resolve()
    corpus = output / "corpus"
    make_demo_corpus(corpus, settings)
    show_shipped(corpus, output)
    seconds = {}
    for system, count in zip(SYSTEMS, epochs, strict=True):
        seconds[system.name] = train(system, count, corpus, output)
        verify(system.name, system.title, output / system.name, corpus, output)
    make_report(output, dict(zip(seconds, epochs, strict=True)), seconds)
    print(f"\nThis call took {(time.monotonic() - start) / 60:.1f} minutes.")


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Train, verify and report on a small synthetic corpus.")
    parser.add_argument("--output_folder", type=Path, default=ROOT / "results" / "demo")
    parser.add_argument("--seed", type=int, default=DemoCorpusSettings().seed, help="of the corpus")
    parser.add_argument("--speakers", type=int, default=DemoCorpusSettings().speakers, help="of the corpus")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs=len(SYSTEMS),
        default=[system.epochs for system in SYSTEMS],
        metavar=tuple(system.name.upper() for system in SYSTEMS),
        help="length of each training",
    )
    options = parser.parse_args()

    def run():
        settings = DemoCorpusSettings(speakers=options.speakers, seed=options.seed)
        run_demo(options.output_folder, settings, options.epochs)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
