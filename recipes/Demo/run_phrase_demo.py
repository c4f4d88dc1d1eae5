#!/usr/bin/env python3
"""Shows text-dependent verification on a small synthetic corpus: `make demo PHRASES=1`.

Makes a corpus of pass-phrases; trains a class token for what is said on top of the shipped model, which knows who
speaks; verifies a trial list; then enrols one speaker with three takes of a phrase, and verifies the same phrase,
another phrase, and an impostor. Plots what the token attends to. A repeated run skips finished steps. The corpus is
synthetic: the figures show that the pipeline works, not how good the models can be.

    python run_phrase_demo.py [--output_folder=results/phrase_demo] [--epochs 6]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from demo_steps import ROOT, exit_code, run_step

from speechbrain_bccmt.attention.clip_attention import attend_to_clip, plot_clips
from speechbrain_bccmt.demo_corpus.phrases import DemoPhraseSettings, make_phrase_corpus
from speechbrain_bccmt.evaluation.trial_types import format_type_table
from speechbrain_bccmt.inference.phrases import verify_phrase
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.trials.read import read_trials

SHOWN = {
    "target-correct": "the same speaker, the same phrase",
    "target-wrong": "the same speaker, another phrase",
    "impostor-correct": "an impostor, the same phrase",
}


def show_decisions(corpus: Path, model: SpeakerVerification, output: Path) -> None:
    """Enrol a speaker with a phrase, verify three recordings, and plot what the token attends to."""
    meta = corpus / "meta"
    trials = read_trials(meta / "trials.txt", enrolment=meta / "model_enrollment.txt")

    def path(row: int) -> str:
        return str(corpus / "wav" / f"{trials.ids[row]}.wav")

    enrolled = int(trials.enrol[trials.is_type("target-correct")][0])
    takes = [path(row) for row in trials.models[enrolled].utterances]
    tested = []
    for kind in SHOWN:
        of_kind = trials.is_type(kind) & (trials.enrol == enrolled)
        if of_kind.any():
            tested.append((kind, path(int(trials.test[of_kind][0]))))
    print(f"\nEnrolled: {', '.join(Path(take).relative_to(corpus / 'wav').as_posix() for take in takes)}")
    enrolment = [model.embed_file(take) for take in takes]
    for kind, test in tested:
        verdict = verify_phrase(model, enrolment, [model.embed_file(test)])
        decision = "accepted" if verdict.decision else f"rejected: {verdict.reason}"
        print(
            f"  {SHOWN[kind]} ({Path(test).relative_to(corpus / 'wav').as_posix()}): {decision}; "
            f"voice {verdict.voice_score:.2f}, phrase {verdict.phrase_score:.2f}"
        )
    clips = [attend_to_clip(model, clip) for clip in (takes[0], *(test for _, test in tested))]
    plot_clips(clips, output / "tokens.png")
    print(f"  What the token attends to in each: {output / 'tokens.png'}")


def run_demo(output: Path, settings: DemoPhraseSettings, epochs: int) -> None:
    """Make the corpus, train, verify, and show decisions."""
    start = time.monotonic()
    output = output.resolve()
    corpus, trained = output / "corpus", output / "voice_phrase"
    make_phrase_corpus(corpus, settings)
    options = {
        "data_folder": corpus,
        "output_folder": trained,
        "number_of_epochs": epochs,
        "margin_end_epoch": max(2, epochs // 2),
        "batch_size": 32,
        "dev_speakers": settings.train_speakers // 4,
        "cache_audio": True,
    }
    arguments = ["train_speaker_embeddings.py", "hparams/voice_phrase.yaml"]
    arguments += [f"--{key}={value}" for key, value in options.items()]
    run_step("training the class token", "PhraseCorpus", arguments, trained)
    folder = output / "verification"
    options = {"data_folder": corpus, "pretrain_path": trained, "output_folder": folder}
    arguments = ["speaker_verification_cosine.py", "hparams/verification_phrases.yaml"]
    arguments += [f"--{key}={value}" for key, value in options.items()]
    run_step("verifying", "PhraseCorpus", arguments, folder)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    titles = {"voice": "Who speaks, alone", "phrase": "What is said, alone", "fusion": "Both"}
    for system, title in titles.items():
        if system in results["types"]:
            print(f"\n{title}:\n{format_type_table(results['types'][system])}")
    show_decisions(corpus, SpeakerVerification.from_hparams(trained), output)
    print(f"\nThis call took {(time.monotonic() - start) / 60:.1f} minutes.")


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Show text-dependent verification on synthetic phrases.")
    parser.add_argument("--output_folder", type=Path, default=ROOT / "results" / "phrase_demo")
    parser.add_argument("--seed", type=int, default=DemoPhraseSettings().seed, help="of the corpus")
    parser.add_argument("--speakers", type=int, default=DemoPhraseSettings().speakers, help="of the corpus")
    parser.add_argument("--epochs", type=int, default=6, help="length of the training")
    options = parser.parse_args()

    def run():
        settings = DemoPhraseSettings(speakers=options.speakers, seed=options.seed)
        run_demo(options.output_folder, settings, options.epochs)

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
