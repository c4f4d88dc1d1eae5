#!/usr/bin/env python3
"""Measures how silence and noise around speech affect the shipped model, with and without voice activity detection.

    python benchmarks/non_speech.py [--utterances 8]

Trials are those of speechocean762's public list (SPEECH_DATA) between --utterances utterances of each test speaker,
spread evenly by name. On both sides of a trial, non-speech is added until it makes up 50 or 90 % of the recording,
before and after the utterance in seeded random shares: digital silence; room noise 30 dB below the speech; street noise
(engines, rain, wind, dogs) 10 dB below it. Decisions are those of the shipped calibration. Then come the lists of other
held-out speakers, unchanged, and the time that detection takes. Prints Markdown tables, and writes
results/non_speech.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
from card_speech import RATE, TrialSet, available, read, trial_set
from recipe_runs import ROOT, SPEECH, describe_machine, speech_corpus
from tqdm import tqdm

from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.recording import Chunk, equal_parts, read_mono
from speechbrain_bccmt.audio.speech import find_speech, keep_speech
from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.inference.chunk_mean import embed_chunks
from speechbrain_bccmt.scoring import act_dcf, cosine_scores, equal_error_rate, min_dcf
from speechbrain_bccmt.scoring.quality import quality_measures

SEED = 0
SHARES = (0.5, 0.9)
# Recordings by part of their names, and their level relative to the speech in dB.
NOISES = {
    "silence": ((), -np.inf),
    "room": (("air_conditioner", "tap", "kitchen", "dishes", "boiler", "washing", "exercise_bike"), -30),
    "street": (("helicopter", "chainsaw", "rain", "wind", "dog"), -10),
}


@lru_cache
def noises(kind: str) -> list[torch.Tensor]:
    """Read the noises of a kind, (samples,) each."""
    names = NOISES[kind][0]
    paths = [
        path
        for path in find_recordings(SPEECH / "noise")
        if any(name in path.split("/")[-1] for name in names)
    ]
    return [torch.from_numpy(read_mono(path, RATE)) for path in paths]


def surround(wav: torch.Tensor, seed: int, kind: str, share: float) -> torch.Tensor:
    """Pad an utterance before and after, until `share` of the result is padding."""
    generator = np.random.default_rng((SEED, seed))
    size = round(len(wav) * share / (1 - share))
    added, level = torch.zeros(size), NOISES[kind][1]
    if NOISES[kind][0]:
        found = noises(kind)[generator.integers(len(noises(kind)))]
        found = found.repeat(size // len(found) + 2)
        start = int(generator.integers(len(found) - size))
        added = found[start : start + size]
        gain = wav.square().mean() / added.square().mean().clamp(min=1e-10)
        added = added * gain.sqrt() * 10 ** (level / 20)
    before = int(generator.integers(size + 1))
    return torch.cat([added[:before], wav, added[before:]])


def embed(model: SpeakerVerification, wav: torch.Tensor, vad: bool) -> tuple[np.ndarray, float]:
    """Embed a waveform as `embed_file` does a file: the embedding, and the seconds of speech."""
    chunks = (Chunk.from_waveform(part, RATE) for part in equal_parts(wav.numpy(), RATE))
    vector, seen = embed_chunks(keep_speech(chunks, RATE) if vad else chunks, model.embed_waveform, RATE)
    return vector, sum(chunk.audible_seconds for chunk in seen)


def judge(model: SpeakerVerification, data: TrialSet, change: Callable, vad: bool, title: str) -> dict:
    """Compute EER, minDCF and actDCF of a trial set whose waveforms are changed by `change(wav, number)`."""
    used = range(len(data.paths))
    if data.models is None:
        used = np.unique(np.concatenate([data.enrol, data.test]))
    vectors = np.ones((len(data.paths), model.embedding_size), dtype=np.float32)
    seconds = np.ones(len(data.paths))
    for number in tqdm(used, title, unit="utt", disable=None):
        wav = change(read(data.paths[number], "whole"), int(number))
        vectors[number], seconds[number] = embed(model, wav, vad)
    scores = np.asarray(cosine_scores(vectors, data.enrol, data.test, data.models), dtype=np.float64)
    target, without = data.target, int((seconds[list(used)] == 0).sum())
    prior = model.calibration.at().p_target
    found = {
        "eer": float(equal_error_rate(scores[target], scores[~target])[0]),
        "min_dcf": float(min_dcf(scores[target], scores[~target], prior)[0]),
        "without_speech": without,
        "seconds": float(seconds[list(used)].mean()),
    }
    if data.models is None:
        measures = quality_measures(np.maximum(seconds, 0.05), counts=np.ones(len(seconds)))
        llrs = model.calibration.llr(scores, data.enrol, data.test, measures)
        heard = (seconds[data.enrol] > 0) & (seconds[data.test] > 0)
        llrs[~heard] = llrs.min()  # rejected, whatever their score
        found["act_dcf"] = float(act_dcf(llrs[target], llrs[~target], prior))
    return found


def subset(data: TrialSet, utterances: int) -> TrialSet:
    """Keep the trials between `utterances` utterances of each speaker."""
    kept = []
    for speaker in np.unique(data.speakers):
        members = np.flatnonzero(data.speakers == speaker)
        kept += list(members[:: max(1, len(members) // utterances)][:utterances])
    rows = np.isin(data.enrol, kept) & np.isin(data.test, kept)
    sides = ("enrol", "test", "target", "enrol_speaker", "test_speaker")
    return replace(data, **{name: getattr(data, name)[rows] for name in sides})


def milliseconds(work: Callable, repeats: int = 21) -> float:
    """Return the median processor time of a function, which other programs affect little."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(1000 * (time.process_time() - started))
    return statistics.median(times)


def latency(model: SpeakerVerification, wav: torch.Tensor) -> dict:
    """Time detection alone, and embedding with and without it, on speech of several lengths."""
    found = {}
    for seconds in (1, 3, 10, 30):
        part = wav.repeat(1 + seconds * RATE // len(wav))[: seconds * RATE]
        found[seconds] = {
            "detection": milliseconds(lambda part=part: find_speech(part.numpy(), RATE)),
            "without": milliseconds(lambda part=part: embed(model, part, False)),
            "with": milliseconds(lambda part=part: embed(model, part, True)),
        }
    return found


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--utterances", type=int, default=8, help="of each test speaker (default: 8)")
    parser.add_argument("--skip-other-lists", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    speech_corpus("speechocean762")
    model = SpeakerVerification.from_hparams()
    whole = trial_set("speechocean762")
    data = subset(whole, options.utterances)
    result = {
        "machine": describe_machine(1),
        "seed": SEED,
        "trials": len(data.target),
        "added": [],
        "lists": [],
    }
    for kind in NOISES:
        for share in SHARES if result["added"] else (0.0, *SHARES):
            row = {"kind": kind if share else "nothing", "share": share}
            for vad in (False, True):
                title = f"{row['kind']}, {share:.0%}, {'with' if vad else 'without'}"
                row["with" if vad else "without"] = judge(
                    model, data, partial(surround, kind=kind, share=share), vad, title
                )
            result["added"].append(row)
    for name in [] if options.skip_other_lists else available():
        other = trial_set(name)
        if other.models is None:
            row = {"name": name, "trials": len(other.target)}
            for vad in (False, True):
                title = f"{name}, {'with' if vad else 'without'}"
                row["with" if vad else "without"] = judge(model, other, lambda wav, _: wav, vad, title)
            result["lists"].append(row)
    result["latency"] = latency(model, read(whole.paths[0], "whole"))
    output = ROOT / "results" / "non_speech.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report(result))
    return 0


def report(result: dict) -> str:
    """Lay out the results as Markdown tables."""
    lines = [f"{result['machine']}; seed {result['seed']}; {result['trials']:,} trials", ""]
    head = "EER % | actDCF | s taken for speech | EER %, with | actDCF, with | s of speech, with |"
    lines += ["| added | of the recording | " + head, "|---" * 8 + "|"]
    lines += [f"| {row['kind']} | {row['share']:.0%} |" + _cells(row) for row in result["added"]]
    if result["lists"]:
        lines += ["", "| list as it is | trials | " + head, "|---" * 8 + "|"]
        lines += [f"| {row['name']} | {row['trials']:,} |" + _cells(row) for row in result["lists"]]
    lines += ["", "| speech, s | detection, CPU ms | embedding, CPU ms | both, CPU ms |", "|---|---|---|---|"]
    for seconds, row in result["latency"].items():
        lines.append(f"| {seconds} | {row['detection']:.1f} | {row['without']:.1f} | {row['with']:.1f} |")
    return "\n".join(lines)


def _cells(row: dict) -> str:
    cells = []
    for side in ("without", "with"):
        found = row[side]
        cells += [f"{100 * found['eer']:.2f}", f"{found['act_dcf']:.3f}", f"{found['seconds']:.2f}"]
    return " " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
