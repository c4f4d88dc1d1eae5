"""Trial lists over speakers that the shipped model never heard, and the conditions for their evaluation."""

from __future__ import annotations

import csv
import io
import zlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from recipe_runs import SPEECH
from speechbrain.processing.signal_processing import reverberate

from speechbrain_bccmt.audio.folders import find_recordings
from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.trials.read import read_trials
from speechbrain_bccmt.trials.trial_list import speaker_of, trial_speakers

RATE = 16000
PUBLIC = ("speechocean762", "arabic_speech_commands")
MOST = 12  # utterances of a held-out speaker, spread evenly
HELD_OUT = Path(__file__).with_name("held_out_speakers.csv")


@dataclass(frozen=True)
class TrialSet:
    """Utterances of a corpus, by path and speaker, and trials between them; `models` as in `read_trials`."""

    name: str
    paths: list[str]
    speakers: np.ndarray
    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray
    enrol_speaker: np.ndarray
    test_speaker: np.ndarray
    models: list | None = None


def available() -> list[str]:
    """List the corpora in SPEECH_DATA that have trials: public lists first, then held-out speakers."""
    return [name for name in PUBLIC if (SPEECH / name / "wav").is_dir()] + [
        name for name in with_held_out() if name not in PUBLIC
    ]


def with_held_out() -> list[str]:
    """List the corpora in SPEECH_DATA that have held-out speakers."""
    return [name for name in sorted(held_out_speakers()) if (SPEECH / name / "wav").is_dir()]


def trial_set(name: str) -> TrialSet:
    """Return the public list of a corpus, or all pairs of its held-out speakers' utterances."""
    if name not in PUBLIC:
        return held_out_set(name)
    folder = SPEECH / name
    files = find_utterances([str(folder)])
    spoken = name == "arabic_speech_commands"
    trials = read_trials(
        folder / "meta" / ("trials.txt" if spoken else "veri_test.txt"),
        enrolment=folder / "meta" / "model_enrollment.txt" if spoken else None,
    )
    rows = np.ones(len(trials), bool)
    if spoken:  # the right phrase by anybody: the trials that suit text-independent verification
        rows = trials.is_type("target-correct") | trials.is_type("impostor-correct")
    sides = trials.enrol, trials.test, trials.target, *trial_speakers(trials)
    speakers = np.array([speaker_of(utterance) for utterance in trials.ids])
    paths = [files[utterance].path for utterance in trials.ids]
    return TrialSet(name, paths, speakers, *(side[rows] for side in sides), models=trials.models)


def held_out_set(name: str) -> TrialSet:
    """Return all pairs of the utterances of a corpus' held-out speakers."""
    return all_pairs(name, held_out_speakers()[name], f"{name} held out")


def all_pairs(name: str, chosen: set[str], title: str) -> TrialSet:
    """Return all pairs of the utterances of some of a corpus' speakers, at most `MOST` of each."""
    files = find_utterances([str(SPEECH / name)])
    ids = []
    for speaker in sorted(chosen):
        own = [utterance for utterance in files if speaker_of(utterance) == speaker]
        count = min(MOST, len(own))
        ids += [own[index * len(own) // count] for index in range(count)]
    speakers = np.array([speaker_of(utterance) for utterance in ids])
    enrol, test = np.triu_indices(len(ids), 1)
    target, paths = speakers[enrol] == speakers[test], [files[utterance].path for utterance in ids]
    return TrialSet(title, paths, speakers, enrol, test, target, speakers[enrol], speakers[test])


def held_out_speakers() -> dict[str, set[str]]:
    """Return the speakers of each corpus that training leaves out."""
    found: dict[str, set[str]] = {}
    with open(HELD_OUT, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["corpus"], set()).add(row["speaker"])
    return found


def read(path: str, condition: str) -> torch.Tensor:
    """Read an utterance (samples,) under a condition; random draws depend on path and condition alone."""
    generator = np.random.default_rng(zlib.crc32(f"{Path(path).name} {condition}".encode()))
    return CONDITIONS[condition](torch.from_numpy(read_mono(path, RATE)), generator)


def used_in_training(path: str) -> bool:
    """Return whether training may use a noise or a room response: three quarters of them, by file name."""
    return zlib.crc32(Path(path).name.encode()) % 4 > 0


def _crop(wave, generator, seconds):
    return _excerpt(wave, generator, seconds * RATE)


def _excerpt(wave, generator, samples):
    start = int(generator.integers(max(1, len(wave) - samples + 1)))
    return wave[start : start + samples]


def _noise(wave, generator, snr):
    noise = torch.from_numpy(read_mono(generator.choice(_files("noise")), RATE))
    noise = noise.repeat(-(-len(wave) // len(noise)))
    noise = _excerpt(noise, generator, len(wave))
    power = wave.square().mean() / noise.square().mean().clamp(min=1e-10)
    return wave + noise * (power / 10 ** (snr / 10)).sqrt()


def _reverb(wave, generator):
    response = torch.from_numpy(read_mono(generator.choice(_files("rir")), RATE))
    return reverberate(wave[None], response[:RATE])[0]


def _telephone(wave, generator, subtype):
    """Resample to 8 kHz and apply a telephone codec."""
    narrow = torchaudio.functional.resample(wave, RATE, 8000)
    narrow = torchaudio.functional.highpass_biquad(narrow, 8000, 300.0)
    return torchaudio.functional.resample(_encode(narrow, 8000, "WAV", subtype), 8000, RATE)[: len(wave)]


def _opus(wave, generator):
    return _encode(wave, RATE, "OGG", "OPUS", compression_level=1.0)[: len(wave)]


def _encode(wave, rate, kind, subtype, **options):
    wave = wave / wave.abs().max().clamp(min=1e-5) * 0.7
    file = io.BytesIO()
    soundfile.write(file, wave.numpy(), rate, format=kind, subtype=subtype, **options)
    file.seek(0)
    return torch.from_numpy(soundfile.read(file, dtype="float32")[0])


@lru_cache
def _files(name: str) -> list[str]:
    return [path for path in find_recordings(SPEECH / name) if not used_in_training(path)]


CONDITIONS = {
    "whole": lambda wave, generator: wave,
    **{f"{seconds} s": partial(_crop, seconds=seconds) for seconds in (1, 2, 3, 5)},
    **{f"noise {snr} dB": partial(_noise, snr=snr) for snr in (10, 5, 0)},
    "reverberation": _reverb,
    "telephone, A-law": partial(_telephone, subtype="ALAW"),
    "telephone, GSM": partial(_telephone, subtype="GSM610"),
    "Opus, lowest rate": _opus,
}
