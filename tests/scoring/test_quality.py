"""Quality-measure fusion on simulated trials whose log-likelihood ratio is known in closed form."""

import json

import numpy as np
import pytest
import torch

from speechbrain_bccmt.scoring import Calibration, act_dcf, cllr, min_dcf
from speechbrain_bccmt.scoring.quality import quality_measures, side_quality
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion, load_calibration


def simulate(n_trials=60000, seed=0, n_utterances=500):
    """Scores shifted by both sides' quality: s = z + 0.8 lower + 0.3 higher, z ~ N(3 or 0, 1)."""
    generator = np.random.default_rng(seed)
    quality, useless = generator.normal(5, 2, n_utterances), generator.normal(0, 1, n_utterances)
    enrol, test = generator.integers(0, n_utterances, (2, n_trials))
    target = generator.random(n_trials) < 0.2
    sides = np.stack([quality[enrol], quality[test]])
    distinct = generator.normal(np.where(target, 3, 0), 1)
    scores = distinct + 0.8 * sides.min(axis=0) + 0.3 * sides.max(axis=0)
    measures = {"quality": quality, "useless": useless}
    return (scores, target, enrol, test, measures), 3 * distinct - 4.5


@pytest.fixture(scope="module")
def fitted():
    return QualityFusion.fit(*simulate()[0], p_target=0.05, fitted_on="dev")


def test_the_weights_are_those_of_the_simulation(fitted):
    weight = fitted.calibration.scale
    assert weight == pytest.approx(3, rel=0.05)
    assert fitted.lower == pytest.approx((-0.8 * weight, 0), abs=0.1)
    assert fitted.higher == pytest.approx((-0.3 * weight, 0), abs=0.1)


def test_new_trials_gain_and_stay_calibrated(fitted):
    (scores, target, *sides), truth = simulate(seed=1)
    fused = fitted.llr(scores, *sides)
    assert np.sqrt(np.mean((fused - truth) ** 2)) < 0.3
    alone = Calibration.fit(scores[target], scores[~target], 0.05).llr(scores)
    costs = [cllr(ratios[target], ratios[~target]) for ratios in (fused, truth, alone)]
    assert costs[0] < 1.01 * costs[1] and costs[0] < 0.6 * costs[2]
    least, _ = min_dcf(fused[target], fused[~target], 0.05)
    assert act_dcf(fused[target], fused[~target], 0.05) < 1.05 * least


def test_the_sides_may_change_places(fitted):
    (scores, _, enrol, test, measures), _ = simulate(100)
    there = fitted.llr(scores, enrol, test, measures)
    assert np.array_equal(fitted.llr(scores, test, enrol, measures), there)
    tensors = {name: torch.tensor(values) for name, values in measures.items()}
    assert np.array_equal(fitted.llr(torch.tensor(scores), torch.tensor(enrol), test, tensors), there)


def test_models_have_measures_of_their_own(fitted):
    (scores, _, enrol, test, measures), _ = simulate(100)
    models = {name: values[::-1] for name, values in measures.items()}
    expected = fitted.llr(scores, enrol, test, measures)
    last = len(measures["quality"]) - 1
    assert np.array_equal(fitted.llr(scores, last - enrol, test, measures, models), expected)
    with pytest.raises(ValueError, match="but there are 3 models"):
        fitted.llr(scores, enrol, test, measures, {name: values[:3] for name, values in models.items()})


def test_a_constant_measure_has_no_weight():
    (scores, target, enrol, test, measures), _ = simulate(2000)
    fusion = QualityFusion.fit(scores, target, enrol, test, measures | {"constant": np.full(500, 0.1)})
    assert fusion.lower[2] == fusion.higher[2] == 0


def test_classes_that_do_not_overlap_stay_finite():
    (_, target, enrol, test, measures), _ = simulate(500)
    fusion = QualityFusion.fit(np.where(target, 1.0, 0.0), target, enrol, test, measures)
    ratios = fusion.llr(np.where(target, 1.0, 0.0), enrol, test, measures)
    assert np.abs(ratios).max() < 25 and ((ratios > 0) == target).all()


def test_measures():
    generator = np.random.default_rng(0)
    embeddings, cohort = generator.normal(size=(6, 4)), generator.normal(size=(9, 4))
    measures = quality_measures(np.arange(1, 7), torch.tensor(embeddings), cohort, top_n=3)
    units, others = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (embeddings, cohort))
    assert measures["cohort_mean"] == pytest.approx(np.sort(units @ others.T)[:, -3:].mean(axis=1), abs=1e-6)
    assert measures["embedding_norm"] == pytest.approx(np.sqrt((embeddings**2).sum(axis=1)))
    assert list(quality_measures(durations=[2.0])) == ["log_duration"]
    with pytest.raises(
        ValueError, match="1 of 2 durations are no positive numbers of seconds, first number 1: 0"
    ):
        quality_measures([1, 0])
    with pytest.raises(ValueError, match="cohort needs the utterances' embeddings"):
        quality_measures([1.0], cohort=cohort)
    assert quality_measures(counts=[1, 3])["log_utterances"] == pytest.approx([0, np.log(3)])
    with pytest.raises(ValueError, match="0 utterances, expected 1 or more"):
        quality_measures(counts=[0])
    assert quality_measures(bandwidths=[3500, 5250, 8000])["narrow"].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="bandwidth is 0 Hz"):
        quality_measures(bandwidths=[0, 8000])
    with pytest.raises(ValueError, match="no quality measure"):
        quality_measures()


def test_a_side_is_as_narrow_as_its_utterances():
    assert side_quality([1.0, 2.0])["narrow"] == side_quality([1.0], [np.nan])["narrow"] == 0
    assert side_quality([1.0, 2.0, 3.0], np.array([np.nan, 3500.0, 8000.0]))["narrow"] == 0.5
    with pytest.raises(ValueError, match="no positive numbers of seconds"):
        side_quality([0.0])


def test_refusals(fitted):
    (scores, target, enrol, test, measures), _ = simulate(50)
    with pytest.raises(ValueError, match="test side lacks the quality measures useless"):
        fitted.llr(scores, enrol, test, {"quality": measures["quality"]}, measures)
    with pytest.raises(ValueError, match="useless has shape"):
        fitted.llr(scores, enrol, test, measures | {"useless": np.zeros(3)})
    with pytest.raises(ValueError, match="quality holds NaN or infinite values, first number 0"):
        fitted.llr(scores, enrol, test, measures | {"quality": np.full(500, np.nan)})
    with pytest.raises(ValueError, match="scores hold NaN or infinite values, first number 0"):
        fitted.llr(scores * np.inf, enrol, test, measures)
    with pytest.raises(ValueError, match="expected one a trial"):
        fitted.llr(scores[1:], enrol, test, measures)
    with pytest.raises(ValueError, match="expected booleans"):
        QualityFusion.fit(scores, target.astype(float), enrol, test, measures)
    with pytest.raises(ValueError, match="do not score higher"):
        QualityFusion.fit(-scores, target, enrol, test, {"useless": measures["useless"]})
    with pytest.raises(ValueError, match="0 target and 50 non-target trials"):
        QualityFusion.fit(scores, target & False, enrol, test, measures)
    with pytest.raises(ValueError, match="use Calibration"):
        QualityFusion.fit(scores, target, enrol, test, {})


def test_what_was_never_seen_is_not_extrapolated(fitted):
    lowest, _, highest = fitted.ranges[0]
    sides = [{"quality": [value], "useless": [0.0]} for value in (lowest, highest, lowest - 5, highest + 5)]
    seen = fitted.llr([1.0], [0], [0], sides[1], sides[0])
    assert fitted.llr([1.0], [0], [0], sides[3], sides[2]) == pytest.approx(seen)


def test_the_calibration_at_a_quality_is_the_fusion(fitted):
    sides = {"quality": 2.0, "useless": 0.5}, {"quality": 4.0, "useless": -1.0}
    lists = [{name: [value] for name, value in side.items()} for side in sides]
    affine = fitted.at(*sides)
    assert affine.llr([0.3, 2.0]) == pytest.approx(fitted.llr([0.3, 2.0], [0, 0], [0, 0], lists[1], lists[0]))
    typical = {name: row[1] for name, row in zip(fitted.measures, fitted.ranges, strict=True)}
    assert fitted.at().offset == pytest.approx(fitted.at(typical, typical).offset)
    with pytest.raises(ValueError, match="enrol side lacks the quality measures useless"):
        fitted.at({"quality": 1.0}, sides[1])


def test_refit_moves_the_score_and_keeps_the_weight_of_quality(fitted):
    (scores, target, *sides), truth = simulate(seed=2)
    other = fitted.refit(2 * scores + 1, target, *sides)  # another model's scores: twice as wide
    ratio = np.array(other.lower) / other.calibration.scale
    assert ratio == pytest.approx(np.array(fitted.lower) / fitted.calibration.scale)
    same = fitted.refit(scores, target, *sides, fitted_on="new")
    assert same.calibration.scale == pytest.approx(fitted.calibration.scale, rel=0.05)
    assert same.calibration.fitted_on == "new" and same.ranges == fitted.ranges


def test_the_calibration_of_a_model_is_read_by_its_format(fitted, tmp_path):
    for calibration in (fitted, Calibration(2.0, -1.0)):
        calibration.save(tmp_path / "calibration.json")
        assert load_calibration(tmp_path / "calibration.json") == calibration


def test_round_trip_and_damaged_files(fitted, tmp_path):
    path = tmp_path / "fusion.json"
    fitted.save(path)
    assert QualityFusion.load(path) == fitted
    content = json.loads(path.read_text())
    for changes, message in (
        ({"lower": [1.0]}, "1 weights of the lower values for 2 measures"),
        ({"higher": [1.0, None]}, "expected a finite number"),
        ({"measures": "quality"}, "must be lists"),
        ({"ranges": [[0, 1, 2]]}, "expected lowest, median and highest of 2 measures"),
        ({"ranges": [[2, 1, 0], [0, 1, 2]]}, "expected lowest, median and highest"),
        ({"scale": 0}, "scale is 0"),
        ({"format": "speechbrain_bccmt calibration"}, "is no fusion"),
    ):
        path.write_text(json.dumps(content | changes))
        with pytest.raises(ValueError, match=message) as caught:
            QualityFusion.load(path)
        assert str(path) in str(caught.value)
    del content["offset"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="lacks offset"):
        QualityFusion.load(path)
