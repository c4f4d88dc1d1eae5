"""The real sherpa-onnx package as client of an exported model."""

import dataclasses

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from speechbrain_bccmt.export.onnx import export_onnx
from speechbrain_bccmt.export.sherpa import fits_sherpa
from speechbrain_bccmt.features import KaldiFbank
from speechbrain_bccmt.inference.model_folder import load_speaker_model

sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed")


@pytest.fixture(scope="module")
def model(kaldi_folder):
    return load_speaker_model(kaldi_folder)


@pytest.fixture(scope="module")
def extractor(model, tmp_path_factory):
    path = export_onnx(
        model, tmp_path_factory.mktemp("sherpa") / "sherpa.onnx", "sherpa", metadata={"language": "en"}
    )
    return sherpa_onnx.SpeakerEmbeddingExtractor(sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(path)))


def theirs(extractor, wav):
    stream = extractor.create_stream()
    stream.accept_waveform(16000, wav.numpy())
    stream.input_finished()
    assert extractor.is_ready(stream)
    return np.array(extractor.compute(stream))


@torch.no_grad()
def ours(model, wav):
    features = model.mean_var_norm(model.compute_features(wav[None]), torch.ones(1))
    return model.embedding_model(features)[0, 0].numpy()


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_same_embedding(model, extractor, speech):
    """Where both have the same frames: three in four lengths. In the fourth, sherpa-onnx has one more at the end."""
    assert extractor.dim == 192
    for number, n_samples in enumerate((4800, 8000, 16000, 48050, 160159)):
        assert not 80 <= n_samples % 160 < 120
        wav = speech(n_samples, number)
        assert cosine(theirs(extractor, wav), ours(model, wav)) > 0.99999, n_samples
    wav = speech(48100, 9)
    frames = kaldi.fbank(wav[None], num_mel_bins=80, high_freq=7600, snip_edges=False)
    with torch.no_grad():
        expected = model.embedding_model((frames - frames[:-1].mean(0))[None, :-1])[0, 0].numpy()
    assert cosine(theirs(extractor, wav), expected) > 0.99999


def test_same_decisions(model, extractor, speech):
    wavs = [speech(40000 + 160 * number, number) for number in range(8)]
    embeddings = [
        np.stack([embed(wav) for wav in wavs])
        for embed in (lambda w: ours(model, w), lambda w: theirs(extractor, w))
    ]
    first, second = np.triu_indices(len(wavs), k=1)
    scores = [np.array([cosine(e[i], e[j]) for i, j in zip(first, second, strict=True)]) for e in embeddings]
    assert np.abs(scores[0] - scores[1]).max() < 1e-3
    threshold = np.sort(scores[0])[[13, 14]].mean()
    manager = sherpa_onnx.SpeakerEmbeddingManager(extractor.dim)
    for number, embedding in enumerate(embeddings[1]):
        manager.add(str(number), embedding.tolist())
    decisions = [
        manager.verify(str(i), embeddings[1][j].tolist(), threshold=threshold)
        for i, j in zip(first, second, strict=True)
    ]
    assert decisions == (scores[0] >= threshold).tolist()
    assert 0 < sum(decisions) < len(decisions)


@torch.no_grad()
def test_shortest_recordings(extractor, synthetic_speech):
    for n_samples in (240, 300, 400, 700):
        assert np.isfinite(theirs(extractor, synthetic_speech(n_samples, 1))).all()


def test_samples_in_the_16_bit_range(kaldi_folder, tmp_path, speech):
    model = load_speaker_model(kaldi_folder)
    model.compute_features.scale = 32768.0
    path = export_onnx(model, tmp_path / "sherpa.onnx", "sherpa")
    client = sherpa_onnx.SpeakerEmbeddingExtractor(
        sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(path))
    )
    wav = speech(32000, 1)
    assert cosine(theirs(client, wav), ours(model, wav)) > 0.99999


def test_other_features_are_refused(training_folder, kaldi_folder, tmp_path):
    other = load_speaker_model(training_folder)
    assert not fits_sherpa(other)
    with pytest.raises(ValueError, match="the front end is Fbank.*KaldiFbank"):
        export_onnx(other, tmp_path / "sherpa.onnx", "sherpa")
    for option, words in (
        ({"f_max": 8000}, "20 to 7600 Hz"),
        ({"centred": False}, "centred"),
        ({"window": "hamming"}, "povey"),
        ({"preemphasis": 0.9}, "preemphasis"),
        ({"scale": 2.0}, "scale"),
        ({"hop_length": 8}, "10 ms"),
        ({"n_mels": 60}, "n_mels"),
    ):
        front_end = KaldiFbank(**{"f_max": 7600, "centred": True, **option})
        other = dataclasses.replace(load_speaker_model(kaldi_folder), compute_features=front_end)
        with pytest.raises(ValueError, match=words):
            export_onnx(other, tmp_path / "sherpa.onnx", "sherpa")
    assert not list(tmp_path.iterdir())
