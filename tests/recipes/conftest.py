"""A corpus of a few seconds, and trained-looking models, for running every recipe."""

import numpy as np
import pytest
import soundfile
import torch

N_SPEAKERS = 8
N_TRAIN = 4  # two more are dev speakers, the last two are in the trial list


def voice(speaker, utterance, seconds=1.0, rate=16000):
    """Speech-like audio: a gliding pitch with harmonics under a speaker's formants, in syllables."""
    rng = np.random.default_rng((speaker, utterance))
    time = np.arange(round(seconds * rate)) / rate
    pitch = 90 + 20 * speaker + 8 * np.sin(2 * np.pi * rng.uniform(1, 3) * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = sum(
        np.sin(k * phase) / k * (1 + 3 * np.exp(-(((k * pitch.mean() - 400 - 90 * speaker) / 200) ** 2)))
        for k in range(1, 20)
    )
    wave *= 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time + rng.uniform(0, 6))
    return (0.1 * wave + 0.003 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folders and files of a corpus in VoxCeleb's layout, by name."""
    folder = tmp_path_factory.mktemp("corpus")
    for speaker in range(N_SPEAKERS):
        for utterance in range(4):
            path = folder / "wav" / f"id{speaker:02d}" / f"s{utterance % 2}" / f"{utterance:05d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, voice(speaker, utterance, 0.6 + 0.2 * utterance), 16000)
    trials = [
        (int(a == b), f"id{a:02d}/s0/00000.wav", f"id{b:02d}/s1/0000{u}.wav")
        for a in (6, 7)
        for b in (6, 7)
        for u in (1, 3)
    ]
    (folder / "trials.txt").write_text("".join(f"{label} {one} {two}\n" for label, one, two in trials))
    rng = np.random.default_rng(0)
    for name, rate, channels, seconds in (("noise", 8000, 2, 0.5), ("rir", 16000, 1, 0.3)):
        (folder / name).mkdir()
        decay = np.exp(-np.arange(round(seconds * rate)) / rate * 20)[:, None]
        audio = 0.1 * rng.standard_normal((round(seconds * rate), channels))
        soundfile.write(folder / name / "one.wav", audio if name == "noise" else audio * decay, rate)
    return {
        "corpus": folder,
        "trials": folder / "trials.txt",
        "noise": folder / "noise",
        "rir": folder / "rir",
    }


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of models as training leaves them, with random weights; the narrow one has small embeddings."""
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

    from speechbrain_bccmt.lobes.bccmt import bccmt_base, bccmt_tiny

    folders = {}
    for name, builder, size in (
        ("teacher", bccmt_base, 192),
        ("student", bccmt_tiny, 192),
        ("narrow", bccmt_tiny, 8),
    ):
        folders[name] = tmp_path_factory.mktemp(name)
        torch.save(builder(embedding_size=size).state_dict(), folders[name] / "embedding_model.ckpt")
        classifier = Classifier(input_size=size, out_neurons=N_TRAIN)
        torch.save(classifier.state_dict(), folders[name] / "classifier.ckpt")
    return folders
