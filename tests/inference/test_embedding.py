"""Embeddings of utterances: padded equals alone, and audio that is not as expected."""

import csv
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_bccmt.features import KaldiFbank
from speechbrain_bccmt.inference import embedding as module
from speechbrain_bccmt.inference.embedding import embed_utterances

LENGTHS = (0.031, 0.4, 1.01, 1.255, 2.0, 0.7, 3.3, 0.05)
FRONT_ENDS = {"kaldi": KaldiFbank, "speechbrain": lambda: Fbank(n_mels=80)}


class MeanAndSpread(torch.nn.Module):
    """An encoder of statistics that honours lengths: sensitive to each frame, and to one frame too many."""

    def forward(self, feats, lengths=None):
        frames = torch.round(lengths * feats.shape[1]).long()
        stats = [
            torch.cat([row[:n].mean(0), row[:n].std(0, False), row[n - 1]])
            for row, n in zip(feats, frames, strict=True)
        ]
        return torch.stack(stats).unsqueeze(1)


def norm():
    return InputNormalization(norm_type="sentence", std_norm=False)


def write_rows(folder, lengths=LENGTHS, rate=16000, channels=1, seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for number, seconds in enumerate(lengths):
        wav = generator.normal(0, 0.1, (round(seconds * rate), channels)) * (1 + np.arange(channels))
        path = folder / f"{number}.wav"
        soundfile.write(path, wav, rate, subtype="FLOAT")
        rows.append(
            {
                "ID": f"u{number}",
                "wav": str(path),
                "duration": str(seconds),
                "start": "0",
                "stop": str(len(wav)),
            }
        )
    return rows


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_padded_equals_alone(tmp_path, front_end):
    rows = write_rows(tmp_path)
    parts = FRONT_ENDS[front_end](), norm(), MeanAndSpread()
    ids, together = embed_utterances(rows, *parts, progress=False)
    _, alone = embed_utterances(rows, *parts, batch_seconds=0.0, progress=False)
    assert ids == [row["ID"] for row in rows]
    assert together.dtype == np.float32 and together.shape == (len(rows), 240)
    assert np.allclose(together, alone, atol=1e-3)
    reference = []
    for row in rows:
        feats = parts[0](torch.from_numpy(soundfile.read(row["wav"], dtype="float32")[0])[None])[0]
        feats = feats - feats.mean(0)
        reference.append(torch.cat([feats.mean(0), feats.std(0, False), feats[-1]]).numpy())
    assert np.allclose(together, reference, atol=1e-3)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("attention", ["temporal", "frequency_time"])
def test_padded_equals_alone_with_the_encoder(tmp_path, front_end, attention):
    from speechbrain_bccmt import bccmt_tiny

    torch.manual_seed(0)
    model = bccmt_tiny(attention=attention)
    rows = write_rows(tmp_path)
    parts = FRONT_ENDS[front_end](), norm(), model
    _, together = embed_utterances(rows, *parts, progress=False)
    _, alone = embed_utterances(rows, *parts, batch_seconds=0.0, progress=False)
    assert cosines(together, alone).min() > 0.99999
    assert model.training


def test_padded_equals_alone_on_real_speech(speech_data):
    folder = speech_data / "speechocean762"
    with open(folder / "meta" / "utterances.csv", newline="", encoding="utf-8") as file:
        utterances = list(csv.DictReader(file))[::200]
    rows = [
        {"ID": row["utterance"], "wav": str(folder / "wav" / row["utterance"]), "duration": row["duration"]}
        for row in utterances
    ]
    for front_end in FRONT_ENDS.values():
        parts = front_end(), norm(), MeanAndSpread()
        _, together = embed_utterances(rows, *parts, progress=False)
        _, alone = embed_utterances(rows, *parts, batch_seconds=0.0, progress=False)
        assert np.allclose(together, alone, atol=1e-3)


def test_batches_hold_what_they_may(tmp_path):
    rows = write_rows(tmp_path)
    batches = module.batches_by_length(rows, 2.5)
    assert sorted(index for batch in batches for index in batch) == list(range(len(rows)))
    durations = [[LENGTHS[index] for index in batch] for batch in batches]
    assert all(len(batch) == 1 or max(batch) * len(batch) <= 2.5 for batch in durations)
    assert len(batches) < len(rows)
    assert durations == sorted(durations, key=max, reverse=True)


def test_each_file_is_read_once(tmp_path, monkeypatch):
    reads = Counter()
    read = module.read_mono

    def counting(path, *options):
        reads[path] += 1
        return read(path, *options)

    monkeypatch.setattr(module, "read_mono", counting)
    rows = write_rows(tmp_path)
    embed_utterances(rows, KaldiFbank(), norm(), MeanAndSpread(), batch_seconds=1, progress=False)
    assert set(reads.values()) == {1} and len(reads) == len(rows)


def test_other_rate_and_channels(tmp_path):
    """A 200 Hz tone is one tone at 8, 16 or 44.1 kHz, in one channel or spread over two."""
    rows = []
    for number, (rate, gains) in enumerate(
        [(16000, [1.0]), (8000, [1.0]), (44100, [1.0]), (16000, [1.5, 0.5])]
    ):
        wav = 0.1 * np.sin(2 * np.pi * 200 * np.arange(2 * rate) / rate)
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, wav[:, None] * gains, rate, subtype="FLOAT")
        rows.append({"ID": str(number), "wav": str(path), "duration": "2.0"})

    class Spectrum(torch.nn.Module):
        def forward(self, feats, lengths=None):
            return feats[:, 20:150].exp().mean(1, keepdim=True)

    _, spectra = embed_utterances(rows, KaldiFbank(), Pass(), Spectrum(), progress=False)
    assert cosines(spectra, np.repeat(spectra[:1], 4, axis=0)).min() > 0.999
    assert np.allclose(spectra.max(1), spectra[0].max(), rtol=0.02)


class Pass(torch.nn.Module):
    def forward(self, feats, lengths=None):
        return feats


def test_segments_of_a_file(tmp_path):
    (row,) = write_rows(tmp_path, lengths=[2.0])
    half = row | {"ID": "half", "start": "8000", "stop": "24000", "duration": "1.0"}
    wav, _ = soundfile.read(row["wav"], dtype="float32")
    soundfile.write(tmp_path / "cut.wav", wav[8000:24000], 16000, subtype="FLOAT")
    cut = {"ID": "cut", "wav": str(tmp_path / "cut.wav"), "duration": "1.0"}
    _, (a, b, whole) = embed_utterances(
        [half, cut, row], KaldiFbank(), norm(), MeanAndSpread(), progress=False
    )
    assert np.array_equal(a, b) and not np.allclose(a, whole)


class NotANumber(torch.nn.Module):
    def forward(self, feats, lengths=None):
        return feats[:, :1] * torch.nan


def test_errors_name_the_utterance(tmp_path):
    rows = write_rows(tmp_path, lengths=[1.0, 0.5])
    parts = KaldiFbank(), norm(), MeanAndSpread()

    def embed_with(**changes):
        embed_utterances([rows[0], rows[1] | changes], *parts, progress=False)

    with pytest.raises(FileNotFoundError, match="utterance 'u1': there is no file .*gone.wav"):
        embed_with(wav=str(tmp_path / "gone.wav"))
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="utterance 'u1': .*text.wav: cannot be read"):
        embed_with(wav=str(tmp_path / "text.wav"))
    with pytest.raises(ValueError, match="utterance 'u1'.*100 samples at 16000 Hz, too short for one frame"):
        embed_with(stop="100")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(ValueError, match="utterance 'u1': .*empty.wav: cannot be read: holds no samples"):
        embed_with(wav=str(tmp_path / "empty.wav"), stop="")
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="utterance 'u1': .*nan.wav: holds NaN or infinite samples"):
        embed_with(wav=str(tmp_path / "nan.wav"), stop="16000")
    parts = KaldiFbank(), norm(), NotANumber()
    with pytest.raises(ValueError, match="2 utterances are NaN or infinite, first 'u0'"):
        embed_with()
    with pytest.raises(ValueError, match="'u0' occurs more than once"):
        embed_with(ID="u0")
    with pytest.raises(ValueError, match="no utterances"):
        embed_utterances([], *parts)


def test_modules_keep_their_mode(tmp_path):
    rows = write_rows(tmp_path, lengths=[0.5])
    encoder, seen = MeanAndSpread(), []
    encoder.register_forward_hook(lambda *_: seen.append(encoder.training))
    for mode in (True, False):
        encoder.train(mode)
        embed_utterances(rows, KaldiFbank(), norm(), encoder, progress=False)
        assert encoder.training is mode
    with pytest.raises(FileNotFoundError):
        embed_utterances([rows[0] | {"wav": "gone"}], KaldiFbank(), norm(), encoder.train(), progress=False)
    assert encoder.training and seen == [False, False]
