#!/usr/bin/env python3
"""Long recordings: error rates by the length of the embedded chunks, and the cost of an hour of audio.

    python benchmarks/long_recordings.py MODEL [--chunks 5 10 20 30 inf] [--folds 5] [--minutes 1 60]

MODEL is the output folder of a training or a hub folder. Error rates: the sentences of each test speaker of
speechocean762 (in SPEECH_DATA) are assigned to folds at random; joined, those outside a fold are a long recording,
which is tried with the sentences of the fold and with all of the other speakers. Only the long side is cut into chunks.
An hour: recordings made by repeating sentences of one speaker, embedded by `SpeakerVerification.embed` from a FLAC
file, in a separate process, which shows its peak memory. One thread. Prints two tables and writes
results/long_recordings.json. Takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch
from peak_memory import peak_megabytes
from recipe_runs import ROOT, describe_machine, speech_corpus

from speechbrain_bccmt.audio import recording as audio
from speechbrain_bccmt.evaluation.summary import summarise
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.scoring import cosine_scores

SEED = 1986
# Sample rate and channels of the recordings whose memory is measured.
FORMS = ((16000, 1), (44100, 2))


def read_sentences(rate: int) -> dict[str, list[torch.Tensor]]:
    """Read the test sentences of each speaker, in random order."""
    corpus, sentences = speech_corpus("speechocean762"), defaultdict(list)
    with open(corpus / "meta" / "utterances.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for index in np.random.default_rng(SEED).permutation(len(rows)):
        path = corpus / "wav" / rows[index]["utterance"]
        sentences[rows[index]["speaker"]].append(torch.from_numpy(audio.read_mono(path, rate)))
    return dict(sorted(sentences.items()))


def error_rates(model: SpeakerVerification, piece_seconds: list[float], folds: int) -> dict:
    """Try long recordings of each speaker with short ones of all, for each length of the chunks."""
    sentences = read_sentences(model.sample_rate)
    short = np.stack([model.embed(wav).numpy() for wavs in sentences.values() for wav in wavs])
    speaker_of = np.array([name for name, wavs in sentences.items() for _ in wavs])
    fold_of = np.array([number % folds for wavs in sentences.values() for number in range(len(wavs))])
    recordings = [
        (name, fold, torch.cat([wav for number, wav in enumerate(wavs) if number % folds != fold]))
        for name, wavs in sentences.items()
        for fold in range(folds)
    ]
    pairs = [
        (len(short) + row, column)
        for row, (name, fold, _) in enumerate(recordings)
        for column in np.flatnonzero((speaker_of != name) | (fold_of == fold))
    ]
    enrol, test = np.array(pairs).T
    target = np.array([recordings[row - len(short)][0] for row in enrol]) == speaker_of[test]
    seconds = [len(wav) / model.sample_rate for *_, wav in recordings]
    found = {"seconds": [min(seconds), float(np.median(seconds)), max(seconds)], "rows": []}
    default, whole = audio.MAX_CHUNK_SECONDS, None
    for longest in sorted(piece_seconds, reverse=True):
        audio.MAX_CHUNK_SECONDS = longest
        long = np.stack([model.embed(wav).numpy() for *_, wav in recordings])
        whole = long if whole is None else whole
        summary = summarise(cosine_scores(np.concatenate([short, long]), enrol, test), target)
        likeness = np.sum(long * whole, axis=1) / np.linalg.norm(long, axis=1) / np.linalg.norm(whole, axis=1)
        figures = {key: float(summary[key]) for key in ("eer", "min_dcf", "n_target", "n_nontarget")}
        found["rows"].append({"piece_seconds": longest, "cosine": float(np.median(likeness)), **figures})
    audio.MAX_CHUNK_SECONDS = default
    return found


def measure(source: str, path: str) -> dict:
    """Embed one recording, in this process."""
    torch.set_num_threads(1)
    model = SpeakerVerification.from_hparams(source)
    start = time.perf_counter()
    model.embed(path)
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_megabytes()}


def measure_apart(source: str, minutes: int, rate: int, channels: int) -> dict:
    """Write a recording of `minutes` minutes, and embed it in a separate process."""
    voice = torch.cat(next(iter(read_sentences(rate).values())))
    voice = voice.repeat(1 + 60 * rate // len(voice))[: 60 * rate, None].repeat(1, channels).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long.flac")
        with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
            for _ in range(minutes):
                file.write(voice)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, source, "--child", str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    of_recording = {"minutes": minutes, "sample_rate": rate, "channels": channels}
    return {**of_recording, "peak_mb": found["peak_mb"], "real_time": 60 * minutes / found["seconds"]}


def main() -> None:
    """Measure both, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument(
        "--chunks", type=float, nargs="+", default=[5, 10, 20, 30, float("inf")], metavar="SECONDS"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 60])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "long_recordings.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.model, options.child)))
        return
    torch.set_num_threads(1)
    report = {"machine": describe_machine(1), "model": options.model}
    report["memory"] = [
        measure_apart(options.model, minutes, *form) for form in FORMS for minutes in options.minutes
    ]
    rates = report["error_rates"] = error_rates(
        SpeakerVerification.from_hparams(options.model), options.chunks, options.folds
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        f"{report['machine']}\n\n| recording | peak memory, MB | times faster than real time |\n|---|---:|---:|"
    )
    for row in report["memory"]:
        form = f"{row['minutes']} min, FLAC, {row['sample_rate'] / 1000:g} kHz, channels: {row['channels']}"
        print(f"| {form} | {row['peak_mb']:.0f} | {row['real_time']:.0f} |")
    first = rates["rows"][0]
    print(
        f"\nLong recordings of {' / '.join(f'{s:.0f}' for s in rates['seconds'])} s (shortest, median, longest); "
        f"{first['n_target']:,.0f} target and {first['n_nontarget']:,.0f} non-target trials, cosine\n\n"
        "| longest chunk, s | EER % | minDCF | cosine with the first row, median |\n|---:|---:|---:|---:|"
    )
    for row in rates["rows"]:
        longest = "whole" if row["piece_seconds"] == float("inf") else f"{row['piece_seconds']:g}"
        print(f"| {longest} | {100 * row['eer']:.2f} | {row['min_dcf']:.3f} | {row['cosine']:.4f} |")


if __name__ == "__main__":
    main()
