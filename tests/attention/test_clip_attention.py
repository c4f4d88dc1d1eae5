"""The attention of a model in a recording, and its plots, against the model's own weights."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from speechbrain_bccmt.attention.clip_attention import attend_to_clip, has_attention, plot_clips
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.attention.test_plots import strips
from tests.tiny_hub_folder import write_token_folder
from tests.voices import voice


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "one.wav"
    soundfile.write(path, voice(1.3, 2), 16000)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_token_folder(tmp_path_factory.mktemp("model"), readout="class+distillation")
    return SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})


@torch.no_grad()
def expected_weights(model, path, token, block):
    """Ask the network itself."""
    wav = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
    features = model.mods.mean_var_norm(model.mods.compute_features(wav), torch.ones(1))
    encoder = model.mods.embedding_model
    return encoder.token_attention(encoder.forward_with_attention(features)[1], token, block)[0].numpy()


def test_a_picture_shows_the_weights_of_the_model(model, clip):
    figure = attend_to_clip(model, clip, blocks=[1, 2]).draw()
    drawn = strips(figure)
    order = [(token, block) for block in (0, 1) for token in ("class", "distillation")]
    expected = np.concatenate([expected_weights(model, clip, *which) for which in order])
    assert len(drawn) == len(expected) == 16
    np.testing.assert_allclose([values for values, _ in drawn], expected, rtol=1e-3)
    assert not np.allclose(expected[:4], expected[4:8]) and not np.allclose(expected[:4], expected[8:12])
    assert all(edges[0] == 0 and edges[-1] == pytest.approx(1.3) for _, edges in drawn)
    titles = [title for axes in figure.axes if (title := axes.get_title("left"))]
    assert [title.split(":")[0] for title in titles] == [
        f"{token} token, block {k + 1}" for token, k in order
    ]


def test_the_last_block_and_all_tokens_are_the_default(model, clip):
    attended = attend_to_clip(model, clip)
    assert attended.blocks == (2,) and list(attended.token_weights) == ["class", "distillation"]
    np.testing.assert_allclose(
        attended.token_weights["distillation"][0][0],
        expected_weights(model, clip, "distillation", -1),
        rtol=1e-3,
    )


def test_a_long_clip_is_cut_and_says_so(model, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 12), 16000)
    attended = attend_to_clip(model, tmp_path / "long.wav")
    assert attended.seconds == 10 and len(attended.features) == 1001
    assert [text.split(": ")[1][:6] for text in attended.warnings] == ["no spe", "12 s l"]


def test_pictures_are_written_whole(model, clip, tmp_path, monkeypatch):
    attended = attend_to_clip(model, clip)
    plot_clips([attended, attended], tmp_path / "both.png")
    width = matplotlib.image.imread(tmp_path / "both.png").shape[1]
    plot_clips([attended], tmp_path / "one.png")
    assert width > 1.7 * matplotlib.image.imread(tmp_path / "one.png").shape[1]
    with pytest.raises(ValueError, match="got 9"):
        plot_clips([attended] * 9, tmp_path / "many.png")
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plot_clips([attended], tmp_path / "broken.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.png", "one.png"]


def test_a_model_without_attention_is_refused(clip):
    model = SimpleNamespace(mods=SimpleNamespace(embedding_model=torch.nn.Identity()), source="x-vector")
    assert not has_attention(model)
    with pytest.raises(ValueError, match="x-vector: its Identity has no attention maps"):
        attend_to_clip(model, clip)


@pytest.mark.parametrize(("readout", "n_strips", "maps"), [("class", 4, 0), ("mean", 0, 1)])
def test_tokens_are_plotted_as_strips_and_frames_as_maps(clip, tmp_path, readout, n_strips, maps):
    folder = write_token_folder(tmp_path / "model", readout=readout)
    model = SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})
    assert has_attention(model)
    axes = attend_to_clip(model, clip).draw("one").axes
    assert len([one for one in axes if one.get_ylabel().startswith("head")]) == n_strips
    assert len([one for one in axes if one.images and "attended" in one.get_xlabel()]) == maps
