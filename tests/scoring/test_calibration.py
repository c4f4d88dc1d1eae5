"""Calibration against simulated scores whose log-likelihood ratio is known in closed form."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from speechbrain_bccmt.scoring import act_dcf, cllr, fitted_json, min_dcf
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.logistic import fit_log_likelihood_ratio

SPREAD, SHIFT, DISTANCE = 0.05, 0.3, 4.0


def gaussian_scores(n_target, n_nontarget, seed=0):
    generator = np.random.default_rng(seed)
    return (
        SHIFT + SPREAD * generator.normal(DISTANCE, 1, n_target),
        SHIFT + SPREAD * generator.normal(0, 1, n_nontarget),
    )


def true_llr(scores):
    """Compute ln N(z; d, 1) - ln N(z; 0, 1) = d z - d^2 / 2 of the score in units of its spread, z."""
    return DISTANCE * (np.asarray(scores) - SHIFT) / SPREAD - DISTANCE**2 / 2


@pytest.fixture(scope="module")
def dev():
    return gaussian_scores(20000, 200000)


@pytest.fixture(scope="module")
def test_scores():
    return gaussian_scores(50000, 500000, seed=1)


@pytest.mark.parametrize("p_target, c_miss, c_fa", [(0.01, 1, 1), (0.05, 1, 1), (0.5, 1, 1), (0.01, 10, 1)])
def test_true_ratios_are_found(dev, test_scores, p_target, c_miss, c_fa):
    fitted = Calibration.fit(*dev, p_target, c_miss, c_fa, fitted_on="dev")
    assert fitted.scale == pytest.approx(DISTANCE / SPREAD, rel=0.03)
    assert fitted.llr(SHIFT) == pytest.approx(true_llr(SHIFT), rel=0.03)
    targets, nontargets = (fitted.llr(scores) for scores in test_scores)
    costs = p_target, c_miss, c_fa
    least, _ = min_dcf(*test_scores, *costs)
    actual = act_dcf(targets, nontargets, *costs)
    assert least <= actual < 1.02 * least
    # One affine map cannot do better than the truth, nor need it do worse.
    assert cllr(targets, nontargets) == pytest.approx(cllr(*map(true_llr, test_scores)), rel=2e-3)
    # The raw threshold decides as Bayes' threshold does on the ratios.
    assert actual == act_dcf(*test_scores, *costs, threshold=fitted.threshold)


def test_a_fit_for_one_prior_holds_at_another(dev, test_scores):
    fitted = dataclasses.replace(Calibration.fit(*dev, p_target=0.05), p_target=0.5)
    actual = act_dcf(*test_scores, 0.5, threshold=fitted.threshold)
    assert actual < 1.05 * min_dcf(*test_scores, 0.5)[0]


def test_the_optimum_is_that_of_a_general_optimiser():
    generator = np.random.default_rng(3)
    features, target = generator.normal(size=(300, 2)), np.arange(300) < 60
    features[target] += [1.5, 0.5]
    weights, offset = fit_log_likelihood_ratio(features, target, p_target=0.1, c_miss=2, c_fa=3)
    effective = 0.2 / (0.2 + 2.7)
    log_odds = math.log(0.2 / 2.7)
    deviation = np.sqrt(
        np.mean([features[c].var(axis=0) for c in (target, ~target)], axis=0)
        + ((features[target].mean(axis=0) - features[~target].mean(axis=0)) / 2) ** 2
    )

    def objective(parameters):
        logit = features @ parameters[:2] + parameters[2] + log_odds
        loss = effective * np.logaddexp(0, -logit[target]).mean()
        loss += (1 - effective) * np.logaddexp(0, logit[~target]).mean()
        return loss + np.square(parameters[:2] * deviation).sum() / (2 * 100 * 300)

    best = minimize(objective, np.zeros(3), tol=1e-9)
    assert [*weights, offset] == pytest.approx(best.x, abs=1e-4)


def test_the_numbers_of_trials_do_not_matter(dev):
    targets, nontargets = dev[0], dev[1][:20000]
    once = Calibration.fit(targets, nontargets, p_target=0.5)
    repeated = Calibration.fit(targets, np.tile(nontargets, 7), p_target=0.5)
    assert repeated.scale == pytest.approx(once.scale, rel=1e-3)
    assert repeated.offset == pytest.approx(once.offset, rel=1e-3)


@pytest.mark.parametrize("number", [1, 10, 10000])
@pytest.mark.parametrize("unit, origin", [(1.0, 0.0), (1e-4, 5.0), (1e6, -3e6)])
def test_separate_classes_stay_finite(number, unit, origin):
    steps = np.linspace(0, 0.01, number)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = Calibration.fit(origin + unit * (0.9 + steps), origin + unit * (0.1 + steps), p_target=0.5)
    low, high = fitted.llr([origin + 0.1 * unit, origin + 0.9 * unit])
    # Ratios grow with the logarithm of the number of trials, no faster.
    assert 0 < high < 8 + np.log(number) / 2 and high == pytest.approx(-low, rel=0.1)
    assert fitted.decide([origin + 0.9 * unit, origin + 0.11 * unit]).tolist() == [True, False]


def test_any_input(dev):
    fitted = Calibration.fit(torch.tensor(dev[0][:500]), dev[1][:500].tolist())
    assert fitted.llr(torch.tensor([[0.3, 0.4]])).shape == (1, 2) and fitted.llr([]).shape == (0,)
    assert fitted.decide(fitted.threshold) and not fitted.decide(np.nextafter(fitted.threshold, -1))
    assert fitted.probability(fitted.threshold) == pytest.approx(0.5)
    # Posterior odds are prior odds times the likelihood ratio.
    odds = math.exp(float(fitted.llr(0.4))) * 0.2 / 0.8
    assert fitted.probability(0.4, p_target=0.2) == pytest.approx(odds / (1 + odds))
    assert fitted.probability([1e6, -1e6]).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="1 of 2 scores are NaN or infinite, first number 1: nan"):
        fitted.llr([0.1, float("nan")])
    with pytest.raises(ValueError, match="p_target is 1"):
        fitted.probability([0.1], p_target=1)


@pytest.mark.parametrize(
    "scores, message",
    [
        (([0.5], []), "no non-target scores"),
        (([0.5, math.inf], [0.1]), "1 of 2 target scores are NaN or infinite"),
        (([0.5, 0.5], [0.5]), "all 3 scores are equal"),
        (([0.1, 0.2], [0.3, 0.15]), "of my list do not score higher than non-target ones .*labels swapped"),
        (([0.2, 0.4], [0.2, 0.4]), "do not score higher"),
    ],
)
def test_scores_that_cannot_be_calibrated(scores, message):
    with pytest.raises(ValueError, match=message):
        Calibration.fit(*scores, fitted_on="my list")


def test_round_trip(tmp_path, dev):
    fitted = Calibration.fit(*dev, 0.05, 2, 3, fitted_on="VoxCeleb1-dev, 2nd half")
    path = tmp_path / "new" / "calibration.json"
    fitted.save(path)
    fitted.save(path)
    assert Calibration.load(path) == fitted and [p.name for p in path.parent.iterdir()] == [path.name]
    content = json.loads(path.read_text())
    assert content["threshold"] == fitted.threshold and content["n_nontarget"] == 200000
    assert content["fitted_on"] == "VoxCeleb1-dev, 2nd half" and content["version"] == 1
    assert 0.02 < content["eer"] < 0.03


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scale": None}, "lacks scale"),
        ({"threshold": None, "eer": None}, "lacks eer, threshold"),
        ({"format": "other"}, "is no calibration: expected JSON with"),
        ({"version": 2}, "of version 2, this package reads version 1"),
        ({"scale": -3.0}, "scale is -3, expected a positive one"),
        ({"offset": math.nan}, "offset is nan, expected a finite number"),
        ({"offset": "1"}, "offset is '1', expected a finite number"),
        ({"p_target": 1.5}, "p_target is 1.5"),
        ({"c_fa": 0}, "c_fa 0"),
        ({"n_target": -1}, "n_target is -1"),
        ({"eer": 2}, "eer is 2"),
        ({"fitted_on": 5}, "fitted_on is 5"),
        ({"threshold": 0.123}, "threshold 0.123 is not that of its scale"),
    ],
)
def test_damaged_files(tmp_path, changes, message):
    path = tmp_path / "calibration.json"
    Calibration(20.0, -6.0).save(path)
    content = json.loads(path.read_text()) | changes
    # None stands for a key that is missing.
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(ValueError, match=message) as caught:
        Calibration.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"3"])
def test_foreign_files(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no calibration"):
        Calibration.load(path)
    with pytest.raises(FileNotFoundError):
        Calibration.load(tmp_path / "none.json")


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "calibration.json"
    Calibration(20.0, -6.0).save(path)

    def fail(self, text, **kwargs):
        self.write_bytes(text[:50].encode())
        raise OSError("disk")

    monkeypatch.setattr(fitted_json.Path, "write_text", fail)
    with pytest.raises(OSError):
        Calibration(30.0, -6.0).save(path)
    monkeypatch.undo()
    assert Calibration.load(path).scale == 20.0
