#!/usr/bin/env python3
"""Evaluates streaming verification on speakers that the shipped model never heard.

    python benchmarks/live.py [--fit sequential.json]

A stream is the joined speech of half of a speaker's utterances, in a seeded random order, twelve orders each; the claim
is one to three of the others, or those of another speaker of the corpus. Streams and claims are clean, in noise at
10 dB or telephone speech. Scores are computed as in `verification.stream`, as speech accumulates. Prints EER by seconds
of speech; the errors of sequential decisions over all looks at a stream, with thresholds fitted without the corpus
(Wald's for comparison), and how much speech they take; the same on the test speakers of speechocean762's public list,
also by `SpeakerStream` itself; and the processor time of that. Writes results/live.json; --fit writes the thresholds
fitted on all corpora.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from card_speech import RATE, held_out_set, read, trial_set, with_held_out
from everybody import shipped_model
from recipe_runs import ROOT, describe_machine
from tqdm import tqdm

from speechbrain_bccmt.audio.levels import bandwidth
from speechbrain_bccmt.audio.recording import Chunk
from speechbrain_bccmt.audio.resampling import resample
from speechbrain_bccmt.audio.speech import keep_speech, level_gain
from speechbrain_bccmt.inference.stream import FIRST_SECONDS, GROWTH, MOST_SECONDS
from speechbrain_bccmt.scoring import equal_error_rate
from speechbrain_bccmt.scoring.cohorts import speaker_means
from speechbrain_bccmt.scoring.quality import quality_measures, side_quality
from speechbrain_bccmt.scoring.sequential import SequentialTest, decision_times
from speechbrain_bccmt.scoring.vectors import unit_length

OUT = ROOT / "results" / "live"
SEED, SPLITS, LONGEST, OTHERS = 0, 12, 15.0, 8
SOUNDS = ("whole", "whole", "noise 10 dB", "telephone, A-law")
PUBLIC = "speechocean762"
ERRORS = (0.05, 0.01)
AT = (1.0, 2.0, 3.0, 5.0)
MEASURES = ("log_duration", "log_utterances", "narrow")


@dataclass(frozen=True)
class Streams:
    """Ratios and seconds of speech of streams against claims (streams, looks), NaN after the end; the labels."""

    ratios: np.ndarray
    seconds: np.ndarray
    target: np.ndarray

    def until_end(self) -> list[np.ndarray]:
        """Return the ratios of each stream up to its end."""
        return [row[np.isfinite(row)] for row in self.ratios]


def looks() -> list[float]:
    """Return the seconds of speech at which a stream without pauses is scored."""
    found, at = [], FIRST_SECONDS
    while at <= LONGEST:
        found.append(at)
        at += min(MOST_SECONDS, max(FIRST_SECONDS * GROWTH, GROWTH * at))
    return found


def join(paths: list[str], sound: str, seconds: float = 28.0) -> np.ndarray:
    """Read utterances under a condition, and join them."""
    return np.concatenate([np.asarray(read(path, sound)) for path in paths])[: int(seconds * RATE)]


def splits(data):
    """Yield the speaker, paths and sound of a stream, and those of its claim."""
    rng = np.random.default_rng(SEED)
    for speaker in np.unique(data.speakers):
        own = [data.paths[i] for i in np.flatnonzero(data.speakers == speaker)]
        own = own[:: max(1, len(own) // 12)][:12]
        for _ in range(SPLITS if len(own) > 1 else 0):
            order, half = [own[i] for i in rng.permutation(len(own))], len(own) // 2
            sounds = [SOUNDS[rng.integers(len(SOUNDS))] for _ in range(2)]
            yield speaker, (order[half:], sounds[0]), (order[:half][: rng.integers(1, 4)], sounds[1])


def spoken(wav: np.ndarray) -> Chunk:
    """Return the speech of a waveform of less than 30 s."""
    (chunk,) = keep_speech([Chunk.from_waveform(wav, RATE)], RATE)
    return chunk


def claim_quality(parts: list[Chunk]) -> dict[str, float]:
    """Measure the speech of a claim."""
    return side_quality(
        [max(0.05, part.audible_seconds) for part in parts], [bandwidth(part.wav, RATE) for part in parts]
    )


def embedded(model, version: str, data) -> dict[str, np.ndarray]:
    """Embed streams at each look, and claims; cached on disk."""
    store = OUT / version / f"{data.name}.npz"
    if store.is_file():
        return dict(np.load(store))
    streams, claims = [], []
    for speaker, stream, claim in tqdm(list(splits(data)), data.name, disable=None):
        chunk = spoken(join(*stream))
        if not chunk.audible_seconds:
            continue
        end = min(LONGEST, chunk.audible_seconds)
        for at in [at for at in looks() if at < end] + [end]:
            part = chunk.wav[: int(at * RATE)]
            part = part * level_gain(part, RATE)
            streams.append((len(claims), at, model.embed_waveform(part), bandwidth(part, RATE)))
        parts = [spoken(join([path], claim[1])) for path in claim[0]]
        vectors = [model.embed_waveform(part.wav) for part in parts]
        claims.append(
            (speaker, speaker_means(vectors, [""] * len(vectors))[0], *claim_quality(parts).values())
        )
    names = (
        "stream",
        "stream_seconds",
        "stream_embedding",
        "stream_band",
        "speaker",
        "claim_embedding",
        *MEASURES,
    )
    found = dict(
        zip(names, map(np.array, (*zip(*streams, strict=True), *zip(*claims, strict=True))), strict=True)
    )
    store.parent.mkdir(parents=True, exist_ok=True)
    np.savez(store, **found)
    return found


def compare(model, found: dict[str, np.ndarray]) -> Streams:
    """Score each stream against its own claim and against those of others."""
    rng, ids = np.random.default_rng(SEED), found["stream"]
    place = np.full((len(found["speaker"]), np.bincount(ids).max()), -1)
    for number, row in enumerate(place):
        own = np.flatnonzero(ids == number)
        own = own[found["stream_seconds"][own] >= min(FIRST_SECONDS, found["stream_seconds"][own].max())]
        row[: len(own)] = own
    pairs = []
    for number, speaker in enumerate(found["speaker"]):
        others = np.flatnonzero(found["speaker"] != speaker)
        pairs += [
            (number, claim)
            for claim in (number, *rng.choice(others, min(OTHERS, len(others)), replace=False))
        ]
    stream, claim = np.array(pairs).T
    there = place[stream] >= 0
    rows, claims = place[stream][there], np.repeat(claim, there.sum(axis=1))
    vectors = unit_length(found["stream_embedding"])[rows], unit_length(found["claim_embedding"])[claims]
    test = quality_measures(
        found["stream_seconds"], counts=np.ones(len(ids)), bandwidths=found["stream_band"]
    )
    enrol = {name: found[name] for name in MEASURES}
    ratios, seconds = (np.full(there.shape, np.nan) for _ in range(2))
    scores = np.einsum("nd,nd->n", *vectors)
    ratios[there] = model.calibration.llr(scores, claims, rows, test, enrol)
    seconds[there] = found["stream_seconds"][rows]
    return Streams(ratios, seconds, stream == claim)


def fit(streams: list[Streams], name: str, errors=(0.1, *ERRORS[:1], 0.02, *ERRORS[1:])) -> SequentialTest:
    """Fit thresholds, weighting every corpus equally."""
    target = np.concatenate([one.target for one in streams])
    weights = np.concatenate(
        [1 / np.where(one.target, one.target.sum(), (~one.target).sum()) for one in streams]
    )
    return SequentialTest.fit(
        [row for one in streams for row in one.until_end()], target, weights, errors, name
    )


def judge(test: SequentialTest, streams: Streams, error: float) -> dict[str, float]:
    """Return errors, the share undecided at the end, and the median seconds of speech to a decision."""
    accepted, rejected = decision_times(streams.ratios, *test.thresholds(error))
    first = np.minimum(accepted, rejected)
    decided = np.isfinite(first)
    seconds = np.full(len(first), np.inf)
    seconds[decided] = streams.seconds[decided, first[decided].astype(int)]
    same = streams.target
    return {
        "false_accepts": float((accepted < rejected)[~same].mean()),
        "false_rejects": float((rejected < accepted)[same].mean()),
        "undecided_same": float((~decided)[same].mean()),
        "undecided_others": float((~decided)[~same].mean()),
        "seconds_same": float(np.median(seconds[same])),
        "seconds_others": float(np.median(seconds[~same])),
    }


def error_rates(streams: Streams) -> dict[float, float]:
    """Return the EER at the look nearest to each of `AT`, of the streams that last that long."""
    found = {}
    for at in AT:
        look = int(np.argmin(np.abs(np.array(looks()) - at)))
        long = streams.ratios[:, look] if look < streams.ratios.shape[1] else np.zeros(0)
        sides = (
            [long[np.isfinite(long) & (streams.target == same)] for same in (True, False)]
            if len(long)
            else [[], []]
        )
        if len(sides[0]) >= 20:
            found[at] = float(equal_error_rate(*sides)[0])
    return found


def in_earnest(model, data, test: SequentialTest, error: float) -> Streams:
    """Feed streams to `SpeakerStream`, each against its own claim and two others; return the ratios of its looks."""
    type(model).sequential = test
    rows, all_splits = [], list(splits(data))[::SPLITS]
    for number, (_, stream, _) in enumerate(tqdm(all_splits, "live", disable=None)):
        wav = join(*stream)
        for shift in (0, 1, 2):
            _, _, claim = all_splits[(number + shift) % len(all_splits)]
            parts = [spoken(join([path], claim[1])) for path in claim[0]]
            live = model.stream([model.embed_waveform(part.wav) for part in parts], error=error)
            live._claim.quality = claim_quality(parts)
            for start in range(0, len(wav), 1600):
                state = live.feed(wav[start : start + 1600])
                if state.decision is not None:
                    break
            rows.append((shift == 0, state.decision, state.decided_after))
    return rows


def cost(model, wav: np.ndarray) -> dict[str, float]:
    """Return the processor time in ms for 100 ms of audio, and of the end of a stream."""
    found = {}
    for rate, seconds in ((16000, 10), (16000, 120), (48000, 120)):
        some = resample(np.resize(wav, seconds * RATE), RATE, rate)
        stream, size, started = model.stream(np.ones(192), rate), rate // 10, time.process_time()
        for start in range(0, len(some), size):
            stream.feed(some[start : start + size])
        fed = time.process_time()
        stream.finish()
        found[f"{seconds} s at {rate} Hz"] = 1000 * (fed - started) / seconds / 10
        found[f"end of {seconds} s at {rate} Hz"] = 1000 * (time.process_time() - fed)
    return found


def an_hour(model, wav: np.ndarray) -> dict[str, float]:
    """Return the memory of the process in MB after 10 and 60 minutes of speech, and the cosine with that of a file."""
    wav, found = np.resize((wav * 32767).astype(np.int16), 3600 * RATE), {}
    stream, size, started = model.stream(np.ones(192)), RATE // 10, time.process_time()
    for start in range(0, len(wav), size):
        stream.feed(wav[start : start + size])
        if (minutes := (start + size) / RATE / 60) in (10, 60):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found[f"MB after {minutes:.0f} min"] = pages * os.sysconf("SC_PAGESIZE") / 2**20
    found["ms for 100 ms"] = 1000 * (time.process_time() - started) / 36000
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "a.wav", wav, RATE)
        sides = stream.finish().embedding, model.embed_file(Path(folder) / "a.wav").embedding
    found["cosine"] = float(sides[0] @ sides[1] / np.linalg.norm(sides[0]) / np.linalg.norm(sides[1]))
    return found


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--fit", metavar="FILE", help="write the thresholds here")
    options = parser.parse_args()
    model, version = shipped_model()
    streams = {name: compare(model, embedded(model, version, held_out_set(name))) for name in with_held_out()}
    result: dict = {"machine": describe_machine(1), "seed": SEED, "corpora": {}}
    everybody = fit(list(streams.values()), f"held-out speakers of {', '.join(streams)}")
    if options.fit:
        everybody.save(options.fit)
    judged = dict(streams)
    public = trial_set(PUBLIC)
    judged[f"{PUBLIC}, public test speakers"] = compare(model, embedded(model, version, public))
    for name, some in judged.items():
        test = fit([one for other, one in streams.items() if other != name], name)
        row = {
            "streams": int(some.target.sum()),
            "others": int((~some.target).sum()),
            "eer": error_rates(some),
        }
        row |= {str(error): judge(test, some, error) for error in ERRORS}
        row |= {f"Wald {error}": judge(SequentialTest.wald(), some, error) for error in ERRORS}
        result["corpora"][name] = row
        print(name, json.dumps(row), flush=True)
    rows = in_earnest(model, public, everybody, 0.01)
    same, others = ([row for row in rows if row[0] == kind] for kind in (True, False))
    result["in earnest"] = {
        "streams": len(same),
        "others": len(others),
        "false_rejects": sum(row[1] is False for row in same),
        "false_accepts": sum(row[1] is True for row in others),
        "median_seconds_same": float(np.median([row[2] or np.inf for row in same])),
    }
    result["cost"] = cost(model, join(public.paths[:6], "whole"))
    result["an hour"] = an_hour(model, join(public.paths[:300], "whole", 1000.0))
    (ROOT / "results" / "live.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report(result))
    return 0


def report(result: dict) -> str:
    """Lay out the results as Markdown tables."""
    lines = [f"{result['machine']}; seed {result['seed']}", ""]
    lines += ["| speakers of | EER % at 1 s | 2 s | 3 s | 5 s |", "|---|---|---|---|---|"]
    for name, row in result["corpora"].items():
        cells = (f"{100 * row['eer'][at]:.1f}" if at in row["eer"] else "" for at in AT)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    head = "falsely accepted | falsely rejected | target: undecided | median s | non-target: undecided | median s |"
    lines += ["", f"| error requested | speakers of | {head}", "|---" * 8 + "|"]
    for key in (*map(str, ERRORS), *(f"Wald {error}" for error in ERRORS)):
        for name, row in result["corpora"].items():
            found = row[key]
            cells = [f"{100 * found[side]:.2f} %" for side in ("false_accepts", "false_rejects")]
            for side in ("same", "others"):
                cells += [f"{100 * found[f'undecided_{side}']:.0f} %", f"{found[f'seconds_{side}']:.1f}"]
            lines.append(f"| {key} | {name} | {' | '.join(cells)} |")
    lines += ["", f"SpeakerStream itself: {result['in earnest']}", f"ms: {result['cost']}"]
    lines.append(f"An hour: {result['an hour']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
