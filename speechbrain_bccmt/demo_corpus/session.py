"""Shared parts of the sentence and phrase demo corpora: sessions, and the synthesis of many speakers."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly
from tqdm import tqdm

from speechbrain_bccmt.demo_corpus import espeak
from speechbrain_bccmt.demo_corpus.channel import SAMPLE_RATE, Channel
from speechbrain_bccmt.demo_corpus.speakers import Speaker, voice_file
from speechbrain_bccmt.files import write_together


def synthesise_speakers(
    speakers: list[Speaker],
    make_speaker: partial,
    folder: Path,
    processes: int | None,
    progress: bool,
) -> None:
    """Synthesise the speakers that have no folder under `wav` yet, each in a separate process."""
    missing = [speaker for speaker in speakers if not (folder / "wav" / speaker.id).is_dir()]
    # The library keeps state between sentences, so each speaker gets a separate process. A fork server does the
    # imports once, including the caller's script; without one (Windows), each process does its own imports.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        # Before Python 3.12.8 the server ignores "__main__": each process then imports the caller's script again, which
        # takes seconds unless the server has already imported the same modules.
        loaded = [name for name in sys.modules if name.startswith("speechbrain_bccmt.")]
        context.set_forkserver_preload(["__main__", __spec__.name, make_speaker.func.__module__, *loaded])
    with context.Pool(processes or os.cpu_count(), maxtasksperchild=1) as pool:
        done = pool.imap_unordered(make_speaker, missing)
        for _ in tqdm(done, total=len(missing), desc="demo corpus", unit="speaker", disable=not progress):
            pass
    shutil.rmtree(folder / "partial", ignore_errors=True)


def claim_folder(folder: Path, settings) -> None:
    """Record the settings, a dataclass, in a new folder; refuse a folder that holds something else."""
    path = folder / "meta" / "demo_corpus.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != asdict(settings):
            raise FileExistsError(
                f"{folder} holds a demo corpus of other settings ({found}): "
                f"give another folder for {asdict(settings)}, or delete this one"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files: give an empty or new folder for the demo corpus")
    else:
        write_together({}, path, json.dumps(asdict(settings), indent=2) + "\n")


@contextlib.contextmanager
def speaker_folder(speaker: Speaker, folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which appears under ``wav`` only once it is complete."""
    unfinished = folder / "partial" / speaker.id
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    (folder / "wav").mkdir(exist_ok=True)
    os.replace(unfinished, folder / "wav" / speaker.id)


@dataclass(frozen=True)
class Session:
    """A speaker on one day: a mood and a channel.

    Parameters
    ----------
    voice : str
        Text of an espeak-ng voice file.
    rate : int
        Words per minute.
    channel : Channel
        Channel of the recordings.
    rng : np.random.Generator
        Source of all differences between the utterances.
    """

    voice: str
    rate: int
    channel: Channel
    rng: np.random.Generator

    @classmethod
    def draw(cls, speaker: Speaker, seed: int, number: int) -> Session:
        """Draw session `number` of a speaker."""
        rng = np.random.default_rng([seed, int(speaker.id[2:]), number])
        channel = Channel.draw(rng)
        voice = voice_file(speaker, rng)
        return cls(voice, round(speaker.rate * rng.uniform(0.88, 1.12)), channel, rng)

    def record(self, text: str, path: Path) -> None:
        """Say a text and write the recording."""
        speech = espeak.synthesize(text, self.voice, self.rate)
        divisor = math.gcd(SAMPLE_RATE, espeak.SAMPLE_RATE)
        speech = resample_poly(speech, SAMPLE_RATE // divisor, espeak.SAMPLE_RATE // divisor)
        sf.write(path, self.channel.apply(speech, self.rng), SAMPLE_RATE, subtype="PCM_16")


def speaker_table(speakers: list[Speaker]) -> str:
    """Return the table of the speakers as CSV."""
    columns = ("id", "sex", "split", "dialect", "variant", "pitch", "pitch_span", "rate")
    rows = [columns, *([str(getattr(speaker, column)) for column in columns] for speaker in speakers)]
    return "".join(",".join(row) + "\n" for row in rows)
