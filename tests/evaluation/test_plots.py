"""Pictures are written for ordinary and for degenerate scores, and show what they should."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from speechbrain_bccmt.evaluation import calibration_plots, plots
from speechbrain_bccmt.evaluation.calibration_plots import (
    empirical_cross_entropy,
    least_cross_entropy,
    plot_calibration,
)
from speechbrain_bccmt.evaluation.plots import (
    name_thresholds,
    plot_det,
    plot_eer_by_duration,
    plot_score_histogram,
    plot_score_histograms,
)
from speechbrain_bccmt.evaluation.summary import eer_by_duration
from speechbrain_bccmt.scoring import cllr, equal_error_rate, min_cllr

generator = np.random.default_rng(0)
CASES = {
    "ordinary": (generator.normal(1, 1, 500), generator.normal(0, 1, 2000)),
    "separate": ([2.0, 3.0], [0.0, 1.0]),
    "equal": ([1.0, 1.0], [1.0]),
    "reversed": ([0.0], [1.0]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error")
def test_pictures(tmp_path, case):
    named = name_thresholds(*CASES[case], calibrated=0.5)
    plot_score_histogram(*CASES[case], tmp_path / "histogram.png", named, title=case)
    plot_det({"this": CASES[case], "ordinary": CASES["ordinary"]}, tmp_path / "det.png", title=case)
    plot_calibration({"this": CASES[case]}, tmp_path / "calibration.png", p_target=0.01, title=case)
    for name in ("histogram", "det", "calibration"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3


def test_one_threshold_or_none(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure.axes[0].lines[0]))
    plot_score_histogram(*CASES["ordinary"], tmp_path / "x.png", threshold=0.5)
    plot_score_histogram(*CASES["ordinary"], tmp_path / "x.png")
    eer, threshold = equal_error_rate(*CASES["ordinary"])
    assert [line.get_xdata()[0] for line in drawn] == [0.5, threshold]
    assert f"EER {100 * eer:.2f} %" in drawn[1].get_label()


@pytest.mark.filterwarnings("error")
def test_svg_holds_text_and_is_reproducible(tmp_path):
    systems = {"ours & theirs": CASES["ordinary"], "other": CASES["separate"]}
    draw = {
        "det": lambda path: plot_det(systems, path),
        "histograms": lambda path: plot_score_histograms(systems, path),
        "calibration": lambda path: plot_calibration(systems, path),
    }
    for name, plot in draw.items():
        plot(tmp_path / f"{name}.svg")
        plot(tmp_path / f"{name}_again.SVG")
        text = (tmp_path / f"{name}.svg").read_text()
        assert text.startswith("<?xml") and "ours &amp; theirs" in text
        assert text == (tmp_path / f"{name}_again.SVG").read_text()


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"det.txt: pictures are written as .png, .svg, .pdf, not as '.txt'"):
        plot_det({"a": CASES["equal"]}, tmp_path / "det.txt")
    for plot in (plot_det, plot_calibration, plot_score_histograms):
        with pytest.raises(ValueError, match="no system to draw"):
            plot({}, tmp_path / "det.png")
        with pytest.raises(ValueError, match="1 of 1 target scores are NaN"):
            plot({"a": ([math.nan], [1.0])}, tmp_path / "det.png")
    with pytest.raises(ValueError, match="p_target is 0"):
        plot_calibration({"a": CASES["equal"]}, tmp_path / "det.png", p_target=0)
    with pytest.raises(ValueError, match="no system to draw"):
        plot_eer_by_duration({}, [1.0], [True], tmp_path / "det.png")
    assert not list(tmp_path.iterdir())


def test_thresholds_are_drawn_where_they_are(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    named = name_thresholds(*CASES["ordinary"], p_target=0.1, calibrated=1.25)
    plot_score_histogram(*CASES["ordinary"], tmp_path / "x.png", named)
    (axes,) = drawn[0].axes
    assert [line.get_xdata()[0] for line in axes.lines] == list(named.values())
    eer, threshold = equal_error_rate(*CASES["ordinary"])
    assert named[f"EER {100 * eer:.2f} %"] == threshold and named["calibrated"] == 1.25
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "calibrated at 1.25" in labels and "target (500)" in labels
    # Both classes have the same area, whatever their numbers.
    assert [sum(bar.get_height() for bar in bars) for bars in axes.containers] == pytest.approx([100, 100])


def test_nothing_lies_over_another(tmp_path, monkeypatch):
    """Titles, axis labels and legends beside the axes keep clear of each other, with long names, too."""
    long = "a system with quite a long name, adaptive s-norm"
    systems = {long: CASES["ordinary"], long + ", calibrated": CASES["ordinary"], "c": CASES["separate"]}
    drawn: list[Figure] = []
    for module in (plots, calibration_plots):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: drawn.append(figure))
    plot_score_histograms(systems, "x.png", {long: name_thresholds(*CASES["ordinary"])}, "title")
    plot_calibration(systems, "x.png", 0.01, "title")
    durations = np.linspace(0.5, 2000, 2500)
    target = np.arange(2500) < 500
    plot_eer_by_duration({long: np.concatenate(CASES["ordinary"])}, durations, target, "x.png", title="title")
    for figure in drawn:
        figure.draw_without_rendering()
        boxes = [legend.get_window_extent() for legend in figure.legends]
        for axes in figure.axes:
            low, high = axes.get_xlim()
            ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
            labels = [label.get_window_extent() for label in ticks]
            assert all(left.x1 < right.x0 for left, right in zip(labels, labels[1:], strict=False))
            boxes += [*labels, axes.title.get_window_extent(), axes.xaxis.label.get_window_extent()]
            boxes += [axes.get_legend().get_window_extent()] if axes.get_legend() else []
        outside = [box for box in boxes if not (box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0)]
        assert not outside


def test_cross_entropy_is_cllr_at_even_odds_and_bounded_below():
    targets, nontargets = generator.normal(3, 2, 300), generator.normal(-4, 2, 900)
    odds = np.linspace(-6, 6, 13)
    actual, least = (f(targets, nontargets, odds) for f in (empirical_cross_entropy, least_cross_entropy))
    assert actual[6] == pytest.approx(cllr(targets, nontargets), abs=1e-12)
    assert least[6] == pytest.approx(min_cllr(targets, nontargets), abs=1e-12)
    assert (least < actual).all()
    # At odds o it is the mean loss of the posteriors, each class weighing its prior.
    prior = 1 / (1 + np.exp(-odds[3]))
    posterior = [1 / (1 + np.exp(-llrs - odds[3])) for llrs in (targets, nontargets)]
    loss = -prior * np.log2(posterior[0]).mean() - (1 - prior) * np.log2(1 - posterior[1]).mean()
    assert actual[3] == pytest.approx(loss)
    # No affine map of the same scores does better than PAV's.
    for scale, offset in generator.normal(size=(50, 2)):
        other = empirical_cross_entropy(abs(scale) * targets + offset, abs(scale) * nontargets + offset, odds)
        assert (least <= other + 1e-12).all()


def test_condensed_ratios_draw_the_same(monkeypatch):
    targets, nontargets = generator.normal(8, 4, 50000), generator.normal(-8, 4, 200000)
    odds = np.linspace(-7, 7, 15)
    condensed = empirical_cross_entropy(targets, nontargets, odds)
    monkeypatch.setattr(calibration_plots, "MOST_RATIOS", 10**9)
    assert condensed == pytest.approx(empirical_cross_entropy(targets, nontargets, odds), rel=1e-4)


def test_eer_by_duration():
    durations = np.array([1.0, 2.0, 2.5, 4.0, 4.0, 9.0, 0.5])
    target = np.array([True, False, True, True, False, True, False])
    scores = np.array([3.0, 1.0, 0.0, 0.9, 1.0, 2.0, 5.0])
    first, second, third = eer_by_duration(scores, target, durations, [1, 2.5, 4, 9])
    assert first == {"from": 1.0, "to": 2.5, "n_target": 1, "n_nontarget": 1, "eer": 0.0}
    assert (second["n_target"], second["n_nontarget"], second["eer"]) == (1, 0, None)
    assert (third["n_target"], third["n_nontarget"]) == (2, 1)
    assert third["eer"] == equal_error_rate([0.9, 2.0], [1.0])[0]
    chosen = eer_by_duration(np.arange(60.0), np.arange(60) % 2 == 0, np.arange(60.0))
    assert len(chosen) == 6 and all(row["n_target"] == row["n_nontarget"] == 5 for row in chosen)
    (single,) = eer_by_duration([1.0, 0.0], [True, False], [3.0, 3.0])
    assert single["eer"] == 0 and single["from"] == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([1.0], [True, False], [1.0, 2.0]), "expected one each a trial"),
        (([], [], []), "there are no trials"),
        (([1.0], [True], [math.nan]), "durations hold NaN or infinite values, first number 0"),
        (([1.0], [True], [1.0], [3, 2]), r"edges of the durations are \[3.0, 2.0\]"),
        (([1.0], [True], [1.0], [3]), "expected at least two"),
    ],
)
def test_refused_durations(arguments, message):
    with pytest.raises(ValueError, match=message):
        eer_by_duration(*arguments)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("edges", [None, [0, 1, 50], [50, 60]])
def test_durations_are_drawn(tmp_path, edges):
    scores = np.concatenate(CASES["ordinary"])
    durations = np.linspace(0.5, 20, 2500)
    path = tmp_path / "durations.png"
    plot_eer_by_duration({"a": scores, "b": -scores}, durations, np.arange(2500) < 500, path, edges)
    assert path.read_bytes().startswith(b"\x89PNG")
