#!/usr/bin/env python3
"""Measures how often a second voice in a recording is found, and how often one is reported by mistake.

    python benchmarks/voices.py

Recordings are joined from utterances of held-out speakers (held_out_speakers.csv) up to a given number of seconds: all
of one speaker, or the latter half of another of the corpus. The threshold is set where one in a hundred recordings of
one speaker gives a false alarm, and also with each corpus left out of it. The share of the latency is for one thread.
Prints Markdown tables, and writes results/voices.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from card_speech import RATE, held_out_set, read, with_held_out
from everybody import shipped_model
from recipe_runs import ROOT, describe_machine
from tqdm import tqdm

from speechbrain_bccmt.inference.voices import check_voices

SEED, RECORDINGS, LENGTHS = 0, 60, (6, 12, 24)
CONDITIONS = ("whole", "noise 10 dB", "telephone, A-law")


def spoken(data, speaker: str, seconds: float, condition: str, rng) -> np.ndarray:
    """Join utterances of a speaker in a seeded random order, and cut them."""
    own = rng.permutation(np.flatnonzero(data.speakers == speaker))
    parts, length = [], 0
    while length < seconds * RATE:
        for number in own:
            parts.append(read(data.paths[number], condition))
            length += len(parts[-1])
            if length >= seconds * RATE:
                break
    return np.concatenate(parts)[: int(seconds * RATE)]


def judge(model, name: str, folder: Path) -> list[dict]:
    """Check recordings of one and of two speakers of a corpus."""
    data, rng, found = held_out_set(name), np.random.default_rng(SEED), []
    speakers = [who for who in np.unique(data.speakers) if (data.speakers == who).sum() > 1]
    for _ in tqdm(range(RECORDINGS), name, disable=None):
        seconds, condition = LENGTHS[rng.integers(3)], CONDITIONS[rng.integers(3)]
        one, other = rng.choice(speakers, 2, replace=False)
        first = spoken(data, one, seconds, condition, rng)
        second = spoken(data, other, seconds / 2, condition, rng)
        for voices, wav in ((1, first), (2, np.concatenate([first[: len(first) // 2], second]))):
            soundfile.write(folder / "a.wav", 0.9 * wav / max(1e-5, np.abs(wav).max()), RATE)
            check = check_voices(model, folder / "a.wav")
            row = {"corpus": name, "voices": voices, "seconds": seconds, "condition": condition}
            found.append(row | {"llr": check.llr, "times": check.times})
    return found


def main() -> int:
    """Run from the command line; return the exit code."""
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    (model, _), rows = shipped_model(), []
    with tempfile.TemporaryDirectory() as folder:
        for name in with_held_out():
            rows += judge(model, name, Path(folder))
        times = {"embedding": [], "check": []}
        path = Path(folder) / "a.wav"
        for _ in range(15):
            for key, work in (
                ("embedding", model.embed_file),
                ("check", lambda path: check_voices(model, path)),
            ):
                started = time.process_time()
                work(path)
                times[key].append(1000 * (time.process_time() - started))
    result = {"machine": describe_machine(1), "seed": SEED, "recordings": rows}
    result["milliseconds"] = {key: float(np.median(value)) for key, value in times.items()}
    (ROOT / "results").mkdir(exist_ok=True)
    (ROOT / "results" / "voices.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(report(result))
    return 0


def report(result: dict) -> str:
    """Lay out the results as Markdown tables."""
    rows = [row for row in result["recordings"] if row["llr"] == row["llr"]]
    lines = [f"{result['machine']}; seed {result['seed']}; {result['milliseconds']}", ""]
    lines += [
        "| by | found, 1 % wolf | found, 5 % wolf | threshold at 1 %, 5 % | found at -1 | wolf at -1 |",
        "|---" * 6 + "|",
    ]
    for key in ("voices", "corpus", "seconds", "condition"):
        for value in sorted({row[key] for row in rows}, key=str) if key != "voices" else ("all",):
            some = [row for row in rows if key == "voices" or row[key] == value]
            one = np.array([row["llr"] for row in some if row["voices"] == 1])
            two = np.array([row["llr"] for row in some if row["voices"] == 2])
            limits = np.quantile(one, [0.01, 0.05])
            cells = [f"{100 * (two < limit).mean():.0f} %" for limit in limits]
            cells.append(f"{limits[0]:.2f}, {limits[1]:.2f}")
            cells += [f"{100 * (side < -1).mean():.1f} %" for side in (two, one)]
            lines.append(f"| {value} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
