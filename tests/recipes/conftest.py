"""A corpus of a few seconds, and trained-looking models, for running every recipe."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
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
    names = sorted((folder / "wav").rglob("*.wav"))
    for name, speed in (("targets", 100), ("targets_90", 90)):
        np.savez(
            folder / f"{name}.npz",
            ids=[path.relative_to(folder / "wav").as_posix() for path in names],
            embeddings=rng.normal(size=(len(names), 192)).astype(np.float32),
            seconds=[soundfile.info(path).duration * 100 / speed for path in names],
        )
    return {
        "targets": folder / "targets.npz",
        "targets_90": folder / "targets_90.npz",
        "corpus": folder,
        "trials": folder / "trials.txt",
        "noise": folder / "noise",
        "rir": folder / "rir",
    }


@pytest.fixture(scope="session")
def phrase_corpora(tmp_path_factory):
    """Folders of phrase corpora by name: one with a CSV, RSR2015's layout and DeepMine's."""
    folder = tmp_path_factory.mktemp("phrases")

    def say(path, speaker, phrase, take):
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = voice(speaker, 10 * phrase + take, 0.3 + 0.1 * phrase)
        if phrase:  # begins with a hiss
            wave[: len(wave) // 2] += 0.1 * np.random.default_rng(take).standard_normal(len(wave) // 2)
        soundfile.write(path, wave, 16000)

    def write(path, *lines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")

    said = [(speaker, phrase, take) for speaker in range(6) for phrase in range(2) for take in range(5)]
    header = "model-id phrase-id enroll-file-id1 enroll-file-id2 enroll-file-id3"
    kinds = ("target-correct", "target-wrong", "impostor-correct", "impostor-wrong")

    meta, rows = folder / "csv" / "meta", ["utterance,speaker,phrase"]
    for speaker, phrase, take in said:
        name = f"s{speaker}/p{phrase}/{take}.wav"
        say(folder / "csv" / "wav" / name, speaker, phrase, take)
        rows.append(f"{name},s{speaker},p{phrase}")
    write(meta / "utterances.csv", *rows)
    write(meta / "model_enrollment.txt", header, "m0 p0 s0/p0/0 s0/p0/1 s0/p0/2")
    tests = ("s0/p0/3", "s0/p1/3", "s1/p0/3", "s1/p1/3", "s0/p0/4", "s0/p1/4", "s1/p0/4", "s1/p1/4")
    trials = [f"m0 {test} {kinds[row % 4]}" for row, test in enumerate(tests)]
    write(meta / "trials.txt", "model-id evaluation-file-id trial-type", *trials)

    for speaker, phrase, take in said:
        name, session = ("m001", "m002", "m051", "m052", "m101", "m102")[speaker], (1, 2, 4, 5, 7)[take]
        path = folder / "rsr2015" / "sph" / "male" / name / f"{name}_{session:02d}_{31 + phrase:03d}.wav"
        say(path, speaker, phrase, take)

    wav, docs, labels = folder / "deepmine" / "wav", folder / "deepmine" / "docs", []
    for speaker, phrase, take in said:
        number = len(labels)
        say(wav / "train" / f"trn_{number:06d}.wav", speaker, phrase, take)
        labels.append(f"trn_{number:06d} spk_{speaker:06d} {phrase + 1:02d}")
    write(docs / "train_labels.txt", "train-file-id speaker-id phrase-id", *labels)
    for take in range(3):
        say(wav / "enrollment" / f"enr_{take:06d}.wav", 7, 0, take)
    write(docs / "model_enrollment.txt", header, "model_00000 01 enr_000000 enr_000001 enr_000002")
    for test in range(6):
        say(wav / "evaluation" / f"evl_{test:06d}.wav", 7 + test // 3, test % 2, 3 + test)
    pairs = [f"model_00000 evl_{test:06d}" for test in range(6)]
    write(docs / "trials.txt", "model-id evaluation-file-id", *pairs)
    write(
        folder / "deepmine" / "key.txt",
        *(f"{pair} {kind}" for pair, kind in zip(pairs, "TC TW TC IC IC IC".split(), strict=True)),
    )
    return {"phrases": folder / "csv", "rsr2015": folder / "rsr2015", "deepmine": folder / "deepmine"}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of models as training leaves them, with random weights; the narrow one has small embeddings."""
    from hyperpyyaml import load_hyperpyyaml
    from speechbrain.lobes.models.ECAPA_TDNN import Classifier

    import speechbrain_bccmt
    from tests.tiny_hub_folder import write_hyperparams

    folders = {}
    for name, builder, size in (
        ("teacher", "bccmt_base", 192),
        ("student", "bccmt_tiny", 192),
        ("narrow", "bccmt_tiny", 8),
        ("token", "TokenEmbedder", 192),
        ("token_bccmt", "token_bccmt_tiny", 192),
    ):
        folders[name] = tmp_path_factory.mktemp(name)
        write_hyperparams(folders[name], builder, embedding_size=size)
        encoder = getattr(speechbrain_bccmt, builder)(embedding_size=size)
        torch.save(encoder.state_dict(), folders[name] / "embedding_model.ckpt")
        classifier = Classifier(input_size=size, out_neurons=N_TRAIN)
        torch.save(classifier.state_dict(), folders[name] / "classifier.ckpt")
    folder = folders["phonetic"] = tmp_path_factory.mktemp("phonetic")
    hparams = load_hyperpyyaml(
        (HPARAMS / "token_phonetic.yaml").read_text(), {"data_folder": "", "phonetic_source": ""}
    )
    # Not what the same seed gives to a network that nobody loads.
    state = {name: value * 0.9 for name, value in hparams["phonetic_model"].state_dict().items()}
    torch.save(state, folder / "phonetic_model.ckpt")
    return folders
