"""What is drawn is checked on the figure itself, and the file by reading it back."""

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from speechbrain_bccmt.attention.plots import plot_attention_maps


@pytest.fixture
def figures(monkeypatch):
    """Figures in the order in which they were saved."""
    saved = []
    save = Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def maps(rng, heads, frames=(100, 50)):
    return [rng.dirichlet(np.ones(n // 2), (heads, n)) for n in frames]


def test_systems_are_columns_and_blocks_rows_in_seconds(tmp_path, figures):
    rng = np.random.default_rng(0)
    teacher, student = maps(rng, 4), maps(rng, 2)
    student = [torch.tensor(weights, requires_grad=True)[None] for weights in student]
    path = tmp_path / "maps.png"
    plot_attention_maps(
        {"teacher": teacher, "student": student}, path, seconds=3.5, row_titles=["one", "two"]
    )
    assert matplotlib.image.imread(path).std() > 0.05
    panels = [axes for axes in figures[0].axes if axes.images]
    assert len(panels) == 4
    for axes, expected in zip(panels, (teacher[0], student[0][0], teacher[1], student[1][0]), strict=True):
        image = axes.images[0]
        expected = torch.as_tensor(expected).detach().mean(0)
        np.testing.assert_allclose(image.get_array(), expected, rtol=1e-5)
        assert image.get_extent() == [0, 3.5, 3.5, 0]
    assert panels[0].get_title() == "teacher" and panels[1].get_title() == "student"
    assert panels[2].get_ylabel().startswith("two") and "(s)" in panels[2].get_xlabel()


def test_a_row_has_one_colour_scale(tmp_path, figures):
    rng = np.random.default_rng(0)
    strong, weak = np.eye(40)[None], rng.dirichlet(np.ones(40), (1, 40))
    plot_attention_maps({"strong": [strong], "weak": [weak]}, tmp_path / "maps.png", seconds=1)
    scales = [axes.images[0].get_clim() for axes in figures[0].axes if axes.images]
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
def test_wrong_input_is_named(tmp_path, systems, options, message):
    with pytest.raises(ValueError, match=message):
        plot_attention_maps(systems, tmp_path / "maps.png", **{"seconds": 1, **options})
