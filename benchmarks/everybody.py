"""Cached embeddings of all labelled speech in SPEECH_DATA by the shipped model, for benchmarks with many names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from card_speech import PUBLIC, held_out_speakers, trial_set
from recipe_runs import ROOT, SPEECH
from tqdm import tqdm

from speechbrain_bccmt.corpora.layout import find_utterances
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.trials.trial_list import speaker_of

OUT = ROOT / "results" / "everybody"


@dataclass(frozen=True)
class Utterances:
    """Utterances of a corpus: speaker, whether held out of training, embedding, seconds of speech, bandwidth."""

    corpus: str
    paths: np.ndarray
    speakers: np.ndarray
    unseen: np.ndarray
    embeddings: np.ndarray
    seconds: np.ndarray
    bandwidths: np.ndarray


def shipped_model() -> tuple[GraphVerifier, str]:
    """Load the shipped model's graph, on one thread, and the fingerprint under which its embeddings are cached."""
    torch.set_num_threads(1)
    model = GraphVerifier.load("tiny", threads=1)
    return model, model.fingerprint


def corpora() -> list[str]:
    """List the corpora in SPEECH_DATA whose utterances have speakers."""
    return sorted(path.parent.name for path in SPEECH.glob("*/wav") if path.parent.name != "unlabelled")


def utterances(model, version: str, corpus: str, most: int = 9) -> Utterances:
    """Embed the speech of a corpus, at most `most` utterances per speaker, leaving out those without speech."""
    unseen = set(held_out_speakers().get(corpus, ()))
    if corpus in PUBLIC:
        unseen |= set(trial_set(corpus).speakers)
    members: dict[str, list[str]] = {}
    for utterance, file in find_utterances([str(SPEECH / corpus)]).items():
        members.setdefault(speaker_of(utterance), []).append(str(file.path))
    kept = {
        name: [own[i * len(own) // min(most, len(own))] for i in range(min(most, len(own)))]
        for name, own in sorted(members.items())
    }
    paths = [path for own in kept.values() for path in own]
    store = OUT / version / f"{corpus} {most}.npz"
    if not store.is_file() or list(np.load(store)["paths"]) != paths or "bandwidths" not in np.load(store):
        found = [model.embed_file(path) for path in tqdm(paths, corpus, unit="utt", disable=None)]
        store.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            store,
            paths=paths,
            embeddings=np.stack([one.embedding for one in found]),
            seconds=[one.speech_seconds for one in found],
            bandwidths=[one.bandwidth for one in found],
        )
    speakers = np.repeat(list(kept), [len(own) for own in kept.values()])
    stored = np.load(store)
    heard = stored["seconds"] > 0
    columns = (
        stored["paths"],
        speakers,
        np.isin(speakers, list(unseen)),
        stored["embeddings"],
        stored["seconds"],
        stored["bandwidths"],
    )
    return Utterances(corpus, *(column[heard] for column in columns))
