"""ONNX graphs run by onnxruntime, against the PyTorch model on the same audio."""

import json

import numpy as np
import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import STFT, InputNormalization

from speechbrain_bccmt import bccmt_tiny
from speechbrain_bccmt.export.fbank import ExportFbank
from speechbrain_bccmt.export.onnx import FeaturesToEmbedding, export_onnx
from speechbrain_bccmt.export.quantise import quantise_dynamic, quantise_static, read_inputs
from speechbrain_bccmt.export.weights import shrink_weights
from speechbrain_bccmt.features import KaldiFbank, frame_count
from speechbrain_bccmt.inference.embedding import embed_waveforms
from speechbrain_bccmt.inference.model_folder import SpeakerModel, load_speaker_model
from speechbrain_bccmt.sessions import load_session

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
SECONDS = (0.3, 1, 3.017, 30)


@pytest.fixture(scope="module", params=["training_folder", "kaldi_folder"])
def model(request):
    return load_speaker_model(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def graphs(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    paths = {}
    for graph in ("features", "waveform"):
        for with_lengths in (False, True):
            path = folder / f"{graph}{with_lengths}.onnx"
            paths[graph, with_lengths] = export_onnx(model, path, graph, with_lengths)
    return paths


@torch.no_grad()
def embed(model, wavs):
    features = model.mean_var_norm(model.compute_features(wavs), torch.ones(len(wavs)))
    return model.embedding_model(features)[:, 0]


def run(path, **inputs):
    session = load_session(path, threads=1)
    return torch.from_numpy(session.run(None, {name: np.asarray(value) for name, value in inputs.items()})[0])


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).min().item()


def test_parity_from_0_3_to_30_seconds(model, graphs, speech):
    for number, seconds in enumerate(SECONDS):
        wav = speech(int(16000 * seconds), number)[None]
        ours = embed(model, wav)
        assert cosine(run(graphs["waveform", False], waveform=wav), ours) > 0.9999, seconds
        assert cosine(run(graphs["features", False], features=model.compute_features(wav)), ours) > 0.9999, (
            seconds
        )


def test_utterances_of_one_length_in_a_batch(model, graphs, speech):
    wavs = torch.stack([speech(20000, number) for number in range(3)])
    ours = embed(model, wavs)
    assert cosine(run(graphs["waveform", False], waveform=wavs), ours) > 0.9999
    assert cosine(ours[0], ours[1]) < 0.999  # or the comparison would show nothing


@pytest.mark.parametrize("graph", ["features", "waveform"])
def test_padding_of_a_batch_changes_nothing(model, graphs, graph, speech):
    wavs = [speech(n, number) for number, n in enumerate((24000, 9000, 16123))]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([len(wav) for wav in wavs])
    values = padded
    if graph == "waveform":
        for row, length in zip(padded, lengths, strict=True):  # whatever fills up a row, loud as it may be
            row[length:] = torch.randn(len(row) - length)
    else:
        values, lengths = model.compute_features(padded), frame_count(model.compute_features, lengths)
    together = run(graphs[graph, True], **{graph: values, "lengths": lengths})
    alone = torch.cat([embed(model, wav[None]) for wav in wavs])
    # SpeechBrain's front end clips 80 dB below the loudest frame, and centres frames across the end: 0.9999 is ours.
    assert cosine(together, alone) > 0.9999


@torch.no_grad()
def test_the_next_piece_has_no_part_in_a_softer_one(model, graphs, speech):
    """SpeechBrain's front end clips 80 dB below the loudest frame of what it is given."""
    soft = speech(16000 * 31, 1)
    soft[: len(soft) // 2] *= 0.01
    wavs = [speech(16000 * 62, 0), soft]
    padded, lengths = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), [len(wav) for wav in wavs]
    together = run(graphs["waveform", True], waveform=padded, lengths=lengths)
    alone = torch.cat([run(graphs["waveform", False], waveform=wav[None]) for wav in wavs])
    assert cosine(together, alone) > 0.9999


def test_empty_rows_have_no_embedding_and_spoil_no_others(graphs):
    """Integer division by zero would end the whole process in some versions of onnxruntime."""
    wavs = torch.randn(2, 8000)
    together = run(graphs["waveform", True], waveform=wavs, lengths=[8000, 0])
    assert together[1].isnan().all()
    assert cosine(together[0], run(graphs["waveform", False], waveform=wavs[:1])) > 0.9999


@torch.no_grad()
def test_long_recordings_are_cut_as_by_the_interface(model, graphs, speech):
    parts = {name: getattr(model, name) for name in ("compute_features", "mean_var_norm", "embedding_model")}
    wavs = [speech(int(16000 * seconds), number) for number, seconds in enumerate((75, 3, 40.01))]
    ours = torch.stack([embed_waveforms([wav], **parts)[0] for wav in wavs])
    alone = torch.cat([run(graphs["waveform", False], waveform=wav[None]) for wav in wavs])
    assert cosine(alone, ours) > 0.9999
    padded, lengths = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), [len(wav) for wav in wavs]
    assert cosine(run(graphs["waveform", True], waveform=padded, lengths=lengths), ours) > 0.9999
    # Cut between frames in place of samples; the length of the chunks is the same.
    features = [model.compute_features(wav[None]) for wav in wavs]
    alone = torch.cat([run(graphs["features", False], features=rows) for rows in features])
    frames = [rows.shape[1] for rows in features]
    padded = torch.nn.utils.rnn.pad_sequence([rows[0] for rows in features], batch_first=True)
    assert cosine(run(graphs["features", True], features=padded, lengths=frames), alone) > 0.9999
    thirds = features[0][0, : frames[0] // 3 * 3].unflatten(0, (3, -1))
    by_hand = model.embedding_model(model.mean_var_norm(thirds, torch.ones(3)))[:, 0].mean(0)
    assert cosine(alone[0], by_hand) > 0.9999


def test_silence_is_finite(model, graphs):
    assert run(graphs["waveform", False], waveform=torch.zeros(1, 8000)).isfinite().all()


def test_metadata_tells_what_a_client_must_know(graphs):
    entries = load_session(graphs["waveform", False]).get_modelmeta().custom_metadata_map
    assert (entries["graph"], entries["sample_rate"], entries["output_dim"]) == ("waveform", "16000", "192")
    assert json.loads(entries["modules"])["embedding_model"]["class"] == "speechbrain_bccmt.bccmt_tiny"


def test_8_bit_graphs_give_nearly_the_same_embedding(synthetic_speech, tmp_path):
    # An untrained network with non-zero branches would amplify every rounding error; a new one does not.
    torch.manual_seed(0)
    norm = InputNormalization(norm_type="sentence", std_norm=False)
    source = export_onnx(
        SpeakerModel(KaldiFbank(), norm, bccmt_tiny().eval()), tmp_path / "waveform.onnx", "waveform"
    )
    wavs = [synthetic_speech(16000, number)[None].numpy() for number in range(4)]
    exact = torch.cat([run(source, waveform=wav) for wav in wavs])
    dynamic = quantise_dynamic(source, tmp_path / "dynamic.onnx")
    static = quantise_static(source, tmp_path / "static.onnx", wavs[:2])
    for path in (dynamic, static):
        assert path.stat().st_size < 0.85 * source.stat().st_size
        close = torch.cat([run(path, waveform=wav) for wav in wavs])
        assert 0.999 < cosine(close, exact) < 1 - 1e-7
        assert load_session(path).get_modelmeta().custom_metadata_map["quantised"] == "int8"


@pytest.mark.parametrize(("stored", "share", "closeness"), [("float16", 0.65, 2e-5), ("int8", 0.5, 5e-3)])
def test_stored_in_fewer_bits_and_computed_as_before(tmp_path, speech, stored, share, closeness):
    source = export_onnx(load_speaker_model("tiny"), tmp_path / "waveform.onnx", "waveform")
    path = shrink_weights(source, tmp_path / "small.onnx", stored)
    assert path.stat().st_size < share * source.stat().st_size
    entries = [load_session(file).get_modelmeta().custom_metadata_map for file in (source, path)]
    assert entries[1] == entries[0] | {"weights": stored}
    wavs = [speech(16000, number)[None] for number in range(3)]
    exact, found = (torch.cat([run(file, waveform=wav) for wav in wavs]) for file in (source, path))
    assert 1e-9 < 1 - cosine(exact, found) < closeness
    with pytest.raises(ValueError, match="float16 or int8, not as 'float8'"):
        shrink_weights(source, tmp_path / "small.onnx", "float8")


def test_mistakes_are_told(model, graphs, tmp_path):
    with pytest.raises(ValueError, match="wave.*features"):
        export_onnx(model, tmp_path / "x.onnx", "wave")
    with pytest.raises(ValueError, match="no speech|there is none"):
        quantise_static(graphs["features", False], tmp_path / "x.onnx", [])
    with pytest.raises(ValueError, match="lengths"):
        quantise_static(graphs["features", True], tmp_path / "x.onnx", [np.zeros((1, 50, 80))])
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.wav"):
        list(read_inputs(model, [tmp_path / "text.wav"], "features"))
    with pytest.raises(ValueError, match=r"text\.wav is not a usable ONNX file"):
        load_session(tmp_path / "text.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["text.wav"]  # nothing half-written


def test_other_transforms_are_refused():
    fbank = Fbank()
    fbank.compute_STFT = STFT(sample_rate=16000, pad_mode="reflect")
    with pytest.raises(ValueError, match="pad_mode"):
        ExportFbank(fbank)


@pytest.mark.parametrize(
    "options",
    [
        {"n_mels": 80},
        {
            "sample_rate": 8000,
            "n_fft": 256,
            "n_mels": 24,
        },  # a window shorter than the transform, in its middle
        {"n_fft": 512, "win_length": 30, "hop_length": 7.5, "f_min": 20, "f_max": 7600},
        {"sample_rate": 11025, "n_fft": 277},  # the plain product: no common factor with the hop
        {"n_mels": 20, "deltas": True, "context": True},
    ],
)
def test_front_end_for_export_is_the_front_end(options, synthetic_speech):
    wavs = torch.stack([synthetic_speech(9001, seed) for seed in range(2)])
    fbank = Fbank(**options)
    with torch.no_grad():
        expected, found = fbank(wavs), ExportFbank(fbank)(wavs)
    # Decibels; bins far below their frame's loudest carry the rounding of another order of sums.
    assert torch.allclose(found, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("norm_type, std_norm", [("sentence", False), ("sentence", True), ("global", False)])
def test_normalisation_is_the_models(norm_type, std_norm):
    norm = InputNormalization(norm_type=norm_type, std_norm=std_norm).train()
    norm(torch.randn(4, 50, 80) + 3, torch.ones(4))
    model = SpeakerModel(KaldiFbank(), norm.eval(), bccmt_tiny().eval())
    features = torch.randn(2, 60, 80) + 2
    with torch.no_grad():
        expected = model.embedding_model(norm(features, torch.ones(2)))[:, 0]
        assert torch.allclose(FeaturesToEmbedding(model)(features), expected, atol=1e-5)
