"""What is plotted is checked on the figure itself."""

import matplotlib.image
import numpy as np
import pytest
import torch

from speechbrain_bccmt.attention.plots import draw_attention_maps, draw_token_attention
from speechbrain_bccmt.figures import save_figure


def maps(rng, heads, frames=(100, 50)):
    return [rng.dirichlet(np.ones(n // 2), (heads, n)) for n in frames]


def test_systems_are_columns_and_blocks_rows_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    teacher, student = maps(rng, 4), maps(rng, 2)
    student = [torch.tensor(weights, requires_grad=True)[None] for weights in student]
    path = tmp_path / "maps.png"
    figure = draw_attention_maps(
        {"teacher": teacher, "student": student}, seconds=3.5, row_titles=["one", "two"]
    )
    save_figure(figure, path)
    assert matplotlib.image.imread(path).std() > 0.05
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 4
    for axes, expected in zip(panels, (teacher[0], student[0][0], teacher[1], student[1][0]), strict=True):
        image = axes.images[0]
        expected = torch.as_tensor(expected).detach().mean(0)
        np.testing.assert_allclose(image.get_array(), expected, rtol=1e-5)
        assert image.get_extent() == [0, 3.5, 3.5, 0]
    assert panels[0].get_title() == "teacher" and panels[1].get_title() == "student"
    assert panels[2].get_ylabel().startswith("two") and "(s)" in panels[2].get_xlabel()


def test_a_row_has_one_colour_scale():
    rng = np.random.default_rng(0)
    strong, weak = np.eye(40)[None], rng.dirichlet(np.ones(40), (1, 40))
    figure = draw_attention_maps({"strong": [strong], "weak": [weak]}, seconds=1)
    scales = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    assert scales[0] == scales[1] and scales[0][0] == 0 and scales[0][1] > 10 * weak.mean()


@pytest.mark.parametrize(
    ("systems", "options", "message"),
    [
        ({}, {}, "at least one"),
        ({"a": []}, {}, "at least one"),
        ({"a": [np.ones((2, 3, 4))], "b": []}, {}, "'a': 1, 'b': 0"),
        ({"a": [np.ones((3, 4))]}, {}, r"a: a map must be .* got \(3, 4\)"),
        ({"a": [np.ones((2, 2, 3, 4))]}, {}, "one utterance"),
        ({"a": [np.ones((2, 3, 4))]}, {"seconds": 0}, "positive, got 0"),
        ({"a": [np.ones((2, 3, 4))]}, {"row_titles": ["x", "y"]}, "1 rows of maps have 2 titles"),
    ],
)
def test_wrong_maps_are_named(systems, options, message):
    with pytest.raises(ValueError, match=message):
        draw_attention_maps(systems, **{"seconds": 1, **options})


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


def test_what_the_token_keeps_is_noted():
    kept = np.array([0.25, 0.013])
    weights = np.full((2, 50), 1 / 50) * (1 - kept[:, None])
    features = np.random.default_rng(0).random((50, 80))
    figure = draw_token_attention(features, {"class token": weights}, 1.0)
    notes = [axes.texts[0].get_text() for axes in figure.axes[1:]]
    assert notes == ["up to 1.5 %\n25.0 % on itself", "up to 2.0 %\n1.3 % on itself"]
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
def test_wrong_weights_are_named(groups, options, message):
    with pytest.raises(ValueError, match=message):
        draw_token_attention(np.zeros((10, 80)), groups, **{"seconds": 1, **options})
