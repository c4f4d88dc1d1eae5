#!/usr/bin/env python3
"""Judges verification while somebody speaks, on speakers that the shipped model never heard.

    python benchmarks/live.py [--fit stream.json]

A stream is the joined speech of half of a speaker's utterances, in an order drawn by a seed; the claim is up to three
of the others, or of another speaker of the corpus. Streams and claims are clean, in noise at 10 dB or telephone speech.
Scores are taken as `verification.stream` takes them, as speech grows. Prints EER at 1, 2, 3 and 5 s of speech; the error
rates that sequential decisions keep at each rate asked for, and how much speech they take, on each corpus left out of
the fit, and on the public lists' test speakers, whom no fit knows; and the cost of `SpeakerStream` itself. --fit writes
the thresholds fitted on the held-out speakers of all corpora.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass

import numpy as np
from card_speech import CONDITIONS, PUBLIC, RATE, held_out_set, read, trial_set, with_held_out
from recipe_runs import ROOT, SPEECH, describe_machine
from tqdm import tqdm

from speechbrain_bccmt.audio.recording import Chunk
from speechbrain_bccmt.audio.speech import keep_speech, level_gain
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.scoring.norms import speaker_means

OUT = ROOT / "results" / "live"
SEED, SPLITS, LONGEST = 0, 12, 15.0
SOUNDS = ("whole", "whole", "noise 10 dB", "telephone, A-law")


def schedule(longest):
    found, at = [], 0.5
    while at <= longest:
        found.append(at)
        at += min(10.0, max(0.25, at / 4))
    return found


def data(model, name, public=False):
    """Return streams and claims of a corpus, kept on disk."""
    store = OUT / fingerprint(model) / f"{name}{' public' * public}.npz"
    if store.is_file():
        return dict(np.load(store))
    trials = trial_set(name) if public else held_out_set(name)
    rng = np.random.default_rng(SEED)
    streams, claims = [], []
    speakers = np.unique(trials.speakers)
    for speaker in tqdm(speakers, name, disable=None):
        own = [trials.paths[i] for i in np.flatnonzero(trials.speakers == speaker)]
        if public:
            own = own[:: max(1, len(own) // 12)][:12]
        if len(own) < 2:
            continue
        for _ in range(SPLITS):
            order = rng.permutation(len(own))
            half = len(own) // 2
            sound = SOUNDS[rng.integers(len(SOUNDS))], SOUNDS[rng.integers(len(SOUNDS))]
            wav = np.concatenate([np.asarray(read(own[i], sound[0])) for i in order[half:]])[: int(28 * RATE)]
            (chunk,) = keep_speech([chunk_of(wav)], RATE)
            if not chunk.audible_seconds:
                continue
            for at in [s for s in schedule(LONGEST) if s < chunk.audible_seconds] + [min(LONGEST, chunk.audible_seconds)]:
                part = chunk.wav[: int(at * RATE)]
                streams.append((len(claims), speaker, at, sound[0], np.asarray(model.embed(part * level_gain(part, RATE)))))
            chosen = order[:half][: rng.integers(1, 4)]
            vectors, seconds = [], 0.0
            for i in chosen:
                (part,) = keep_speech([chunk_of(np.asarray(read(own[i], sound[1])))], RATE)
                vectors.append(np.asarray(model.embed(part.wav)))
                seconds += part.audible_seconds
            claims.append((speaker, len(chosen), max(seconds, 0.05), sound[1], speaker_means(vectors, [""] * len(vectors))[0]))
    found = {
        "stream": np.array([row[0] for row in streams]),
        "stream_speaker": np.array([row[1] for row in streams]),
        "stream_seconds": np.array([row[2] for row in streams]),
        "stream_sound": np.array([row[3] for row in streams]),
        "stream_embedding": np.stack([row[4] for row in streams]),
        "claim_speaker": np.array([row[0] for row in claims]),
        "claim_count": np.array([row[1] for row in claims]),
        "claim_seconds": np.array([row[2] for row in claims]),
        "claim_sound": np.array([row[3] for row in claims]),
        "claim_embedding": np.stack([row[4] for row in claims]),
    }
    store.parent.mkdir(parents=True, exist_ok=True)
    np.savez(store, **found)
    return found


def chunk_of(wav):
    return Chunk.from_waveform(np.ascontiguousarray(wav), RATE)


if __name__ == "__main__":
    import torch; torch.set_num_threads(1)
    from speechbrain_bccmt.inference import SpeakerVerification
    from speechbrain_bccmt.inference.graph import use_graph
    m = SpeakerVerification.from_hparams(); use_graph(m)
    for n in with_held_out():
        d = data(m, n); print(n, len(d["claim_count"]), len(d["stream"]), flush=True)
    for n in PUBLIC:
        d = data(m, n, True); print(n, len(d["claim_count"]), len(d["stream"]), flush=True)
