"""What the strips show is checked on the figure itself, and the picture of a model against its own weights."""

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from speechbrain_bccmt.attention.clip_attention import attend_to_clip, plot_clips
from speechbrain_bccmt.attention.plots import draw_token_attention
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.tiny_hub_folder import write_token_folder
from tests.voices import voice


def strips(figure):
    """Return each strip of a figure by its values and edges."""
    axes = [axes for axes in figure.axes if not axes.images]
    return [(data.values, data.edges) for data in (axes[k].patches[0].get_data() for k in range(len(axes)))]


@pytest.mark.parametrize(("frames", "stride", "n"), [(101, 2, 51), (100, 2, 50), (100, 1, 100), (99, 4, 25)])
def test_strips_are_the_weights_at_their_times(frames, stride, n):
    rng = np.random.default_rng(0)
    weights = torch.tensor(rng.dirichlet(np.ones(n + 1), (1, 3)), requires_grad=True)[..., 1:]
    figure = draw_token_attention(rng.random((frames, 80)), {"class token": weights}, 2.5, stride)
    drawn = strips(figure)
    assert len(drawn) == 3
    for (values, edges), expected in zip(drawn, weights[0].detach(), strict=True):
        np.testing.assert_array_equal(values, expected.float())
        assert edges[0] == 0 and edges[-1] == 2.5
        # The middle of a frame of the sequence is that of the frame of the features on which it is centred.
        middles = (edges[1:-2] + edges[2:-1]) / 2
        np.testing.assert_allclose(middles, (np.arange(1, n - 1) * stride + 0.5) * 2.5 / frames)
    top, bottom = figure.axes[0], figure.axes[-1]
    assert top.images[0].get_extent()[:2] == [0, 2.5]
    assert top.get_xlim() == bottom.get_xlim() == (0, 2.5) and bottom.get_xlabel() == "time (s)"


def test_what_the_token_keeps_is_told():
    kept = np.array([0.25, 0.013])
    weights = np.full((2, 50), 1 / 50) * (1 - kept[:, None])
    features = np.random.default_rng(0).random((50, 80))
    figure = draw_token_attention(features, {"class token": weights}, 1.0)
    told = [axes.texts[0].get_text() for axes in figure.axes[1:]]
    assert told == ["up to 1.5 %\n25.0 % on itself", "up to 2.0 %\n1.3 % on itself"]
    figure = draw_token_attention(features, {"a": weights, "b": weights}, 1.0, tokens=2)
    assert "25.0 % on tokens" in figure.axes[1].texts[0].get_text()
    assert figure.axes[1].get_title("left").startswith("a: ") and figure.axes[3].get_title("left").startswith(
        "b: "
    )


def test_a_weight_of_all_is_100_percent():
    figure = draw_token_attention(np.ones((9, 80)), {"class token": np.eye(9)[:1]}, 1.0)
    assert figure.axes[1].texts[0].get_text() == "up to 100.0 %\n0.0 % on itself"


def test_silence_and_one_frame_are_drawn(tmp_path):
    figure = draw_token_attention(np.zeros((1, 80)), {"class token": np.zeros((1, 1))}, 0.01)
    figure.savefig(tmp_path / "one.png")
    assert matplotlib.image.imread(tmp_path / "one.png").std() > 0


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ({}, {}, "no token"),
        ({"a": np.ones((2, 9))}, {}, r"a: expected weights \(heads, 10 frames\).*\(2, 9\)"),
        ({"a": np.ones((2, 2, 10))}, {}, "one utterance"),
        ({"a": np.ones((2, 10))}, {"seconds": 0}, "positive, got 0"),
        ({"a": np.ones((2, 10))}, {"frequencies": [1, 2]}, "80 mel bands have 2 frequencies"),
    ],
)
def test_wrong_input_is_named(groups, options, message):
    with pytest.raises(ValueError, match=message):
        draw_token_attention(np.zeros((10, 80)), groups, **{"seconds": 1, **options})


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
    np.testing.assert_allclose([values for values, _ in drawn], expected, rtol=1e-5)
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
        rtol=1e-5,
    )


def test_a_long_clip_is_cut_and_says_so(model, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 12), 16000)
    attended = attend_to_clip(model, tmp_path / "long.wav")
    assert attended.seconds == 10 and len(attended.features) == 1001
    assert [text.split(": ")[1][:6] for text in attended.warnings] == ["silent", "12 s l"]


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
