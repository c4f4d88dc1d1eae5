"""Error rates against a brute force that follows their definitions."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from sklearn.metrics import roc_curve
from speechbrain.utils.metric_stats import EER, minDCF

from speechbrain_bccmt.scoring import (
    act_dcf,
    cllr,
    det_curve,
    equal_error_rate,
    min_cllr,
    min_dcf,
    miss_rate_at,
)
from speechbrain_bccmt.scoring.roc import hull_curve


def brute_rates(targets, nontargets):
    """Miss and false-alarm rates at every threshold, by counting."""
    rates = []
    for threshold in [*sorted({*targets, *nontargets}), math.inf]:
        misses = sum(score < threshold for score in targets) / len(targets)
        false_alarms = sum(score >= threshold for score in nontargets) / len(nontargets)
        rates.append((threshold, misses, false_alarms))
    return rates


def brute_eer(targets, nontargets):
    """Cross the ROC polygon with the diagonal, segment by segment."""
    rates = brute_rates(targets, nontargets)
    for (_, miss0, fa0), (_, miss1, fa1) in zip(rates, rates[1:], strict=False):
        if miss0 <= fa0 and miss1 >= fa1:
            # miss0 + w (miss1 - miss0) = fa0 + w (fa1 - fa0)
            weight = (fa0 - miss0) / ((miss1 - miss0) - (fa1 - fa0))
            return miss0 + weight * (miss1 - miss0)
    raise AssertionError("the ROC always crosses the diagonal")


def brute_dcf(targets, nontargets, p_target, c_miss, c_fa):
    costs = [
        c_miss * p_target * m + c_fa * (1 - p_target) * f for _, m, f in brute_rates(targets, nontargets)
    ]
    return min(costs) / min(c_miss * p_target, c_fa * (1 - p_target))


def random_cases():
    generator = np.random.default_rng(3)
    for case in range(120):
        sizes = generator.integers(1, 40, size=2)
        targets, nontargets = (
            generator.normal(shift, 1, size) for shift, size in zip((1, 0), sizes, strict=True)
        )
        if case % 3 == 0:  # many ties, within and across the classes
            targets, nontargets = targets.round(), nontargets.round()
        if case % 7 == 0:  # worse than chance
            targets, nontargets = nontargets, targets
        yield targets.tolist(), nontargets.tolist()


ADVERSARIAL = [
    ([1.0], [0.0]),
    ([0.0], [1.0]),
    ([1.0, 1.0], [1.0]),
    ([0.0, 1.0, 1.0], [1.0, 1.0, 2.0]),
    ([1.0, 2.0], [0.0, 0.0, 0.0, 1.0]),
    ([-0.0, 0.0], [0.0, -0.0]),
    ([1.0, math.nextafter(1.0, 2.0)], [1.0]),
    ([1e300, -1e300], [0.0]),
    ([5.0] * 9 + [0.0], [0.0] * 3),
]


@pytest.mark.parametrize("targets, nontargets", [*ADVERSARIAL, *random_cases()])
def test_against_brute_force(targets, nontargets):
    eer, threshold = equal_error_rate(targets, nontargets)
    assert eer == pytest.approx(brute_eer(targets, nontargets), abs=1e-12)
    rates = {at: (miss, fa) for at, miss, fa in brute_rates(targets, nontargets)}
    # No other threshold brings the two rates nearer.
    gap = abs(rates[threshold][0] - rates[threshold][1])
    assert gap == pytest.approx(min(abs(miss - fa) for miss, fa in rates.values()))
    for p_target, c_miss, c_fa in ((0.01, 1, 1), (0.05, 1, 1), (0.5, 1, 1), (0.01, 10, 1), (0.9, 1, 3)):
        cost, at = min_dcf(targets, nontargets, p_target, c_miss, c_fa)
        assert cost == pytest.approx(brute_dcf(targets, nontargets, p_target, c_miss, c_fa), abs=1e-12)
        assert act_dcf(targets, nontargets, p_target, c_miss, c_fa, threshold=at) == pytest.approx(cost)
        assert 0 <= cost <= 1
    p_miss, p_fa, thresholds = det_curve(targets, nontargets)
    expected = brute_rates(targets, nontargets)
    assert np.allclose(p_miss, [miss for _, miss, _ in expected])
    assert np.allclose(p_fa, [fa for _, _, fa in expected])
    assert np.array_equal(thresholds[:-1], [at for at, _, _ in expected][:-1])


def test_known_values():
    assert equal_error_rate([2, 3], [0, 1]) == (0.0, 2.0)
    assert equal_error_rate([0, 1], [2, 3])[0] == 1.0
    assert equal_error_rate([1, 1], [1, 1]) == (0.5, 1.0)
    assert min_dcf([1, 1], [1, 1])[0] == 1.0
    assert min_dcf([2, 3], [0, 1]) == (0.0, 2.0)
    # Rejecting all is best here, at a finite threshold above every score.
    cost, threshold = min_dcf([0.0], [1.0])
    assert cost == 1 and 1 < threshold < 1.0001


def test_bayes_threshold_and_cllr():
    # ln(0.99 / 0.01) = 4.595: the target at 4.5 is missed, the non-target at 4.7 accepted.
    assert act_dcf([4.5, 9.0], [4.7, 0.0, 0.0, 0.0]) == pytest.approx(0.5 + 99 / 4)
    generator = np.random.default_rng(0)
    targets, nontargets = generator.normal(2, 2, 50000), generator.normal(-2, 2, 50000)
    expected = (np.log2(1 + np.exp(-targets)).mean() + np.log2(1 + np.exp(nontargets)).mean()) / 2
    assert cllr(targets, nontargets) == pytest.approx(expected)
    # These are true likelihood ratios: any shift or stretch costs.
    assert cllr(targets, nontargets) < min(
        cllr(targets + 1, nontargets + 1), cllr(2 * targets, 2 * nontargets)
    )
    assert cllr([1000.0], [-1000.0]) == 0.0 and math.isfinite(cllr([-1000.0], [1000.0]))


@pytest.mark.parametrize(
    "metric",
    [
        equal_error_rate,
        min_dcf,
        act_dcf,
        cllr,
        min_cllr,
        det_curve,
        lambda *scores: miss_rate_at(*scores, 0.1),
    ],
)
def test_refusals(metric):
    with pytest.raises(ValueError, match="no target scores"):
        metric([], [1.0])
    with pytest.raises(ValueError, match="no non-target scores"):
        metric([1.0], torch.empty(0))
    with pytest.raises(ValueError, match="1 of 2 target scores are NaN or infinite, first number 1: nan"):
        metric([1.0, math.nan], [1.0])
    with pytest.raises(ValueError, match="non-target scores are NaN or infinite.*inf"):
        metric([1.0], np.array([-math.inf, 0.0]))


def test_costs_out_of_range():
    for options in ({"p_target": 0}, {"p_target": 1}, {"c_miss": 0}, {"c_fa": -1}, {"p_target": math.nan}):
        for metric in (min_dcf, act_dcf):
            with pytest.raises(ValueError, match="expected"):
                metric([1.0], [0.0], **options)


def test_kinds_of_input_agree():
    generator = np.random.default_rng(1)
    targets, nontargets = generator.normal(1, 1, 300), generator.normal(0, 1, 500)
    expected = equal_error_rate(targets.astype(np.float32), nontargets.astype(np.float32))
    tensors = torch.tensor(targets, dtype=torch.float32, requires_grad=True), torch.tensor(nontargets).float()
    assert equal_error_rate(*tensors) == expected
    assert equal_error_rate(*(tensor[:, None] for tensor in tensors)) == expected
    assert all(type(value) is float for value in expected)
    equal_error_rate(tensors[0].bfloat16(), tensors[1].half())


def test_order_and_repetition_change_nothing():
    generator = np.random.default_rng(2)
    targets, nontargets = generator.normal(1, 1, 300).round(1), generator.normal(0, 1, 500).round(1)
    shuffled = generator.permutation(np.tile(targets, 3)), generator.permutation(np.tile(nontargets, 2))
    assert equal_error_rate(*shuffled) == pytest.approx(equal_error_rate(targets, nontargets))
    assert min_dcf(*shuffled) == pytest.approx(min_dcf(targets, nontargets))


def test_half_a_million_trials_take_no_time():
    generator = np.random.default_rng(4)
    targets, nontargets = generator.normal(1, 1, 280_000), generator.normal(0, 1, 280_000)
    start = time.perf_counter()
    equal_error_rate(targets, nontargets)
    min_dcf(targets, nontargets)
    assert time.perf_counter() - start < 5


def sklearn_rates(targets, nontargets):
    """Miss and false-alarm rates by scikit-learn, from accepting all to rejecting all."""
    labels = np.repeat([1, 0], [len(targets), len(nontargets)])
    scores = np.concatenate([targets, nontargets]).astype(np.float64)
    false_alarm, hit, _ = roc_curve(labels, scores, drop_intermediate=False)
    return 1 - hit[::-1], false_alarm[::-1]


def sklearn_eer(targets, nontargets):
    p_miss, p_false_alarm = sklearn_rates(targets, nontargets)
    # Both along the length of the curve, and where their difference is zero on it.
    return np.interp(0, p_miss - p_false_alarm, p_miss)


def agree_with_sklearn(targets, nontargets):
    p_miss, p_false_alarm, _ = det_curve(targets, nontargets)
    expected_miss, expected_fa = sklearn_rates(targets, nontargets)
    np.testing.assert_allclose(p_miss, expected_miss, atol=1e-12)
    np.testing.assert_allclose(p_false_alarm, expected_fa, atol=1e-12)
    assert equal_error_rate(targets, nontargets)[0] == pytest.approx(
        sklearn_eer(targets, nontargets), abs=1e-9
    )
    for p_target in (0.01, 0.5, 0.9):
        costs = p_target * expected_miss + (1 - p_target) * expected_fa
        expected = costs.min() / min(p_target, 1 - p_target)
        assert min_dcf(targets, nontargets, p_target)[0] == pytest.approx(expected, abs=1e-9)
    for rate in (0.0, 0.01, 0.5, 1.0):
        miss, threshold = miss_rate_at(targets, nontargets, rate)
        assert miss == pytest.approx(expected_miss[expected_fa <= rate].min(), abs=1e-12)
        assert np.mean(np.asarray(nontargets) >= threshold) <= rate
        assert np.mean(np.asarray(targets) < threshold) == miss


def scores_of(elements, dtype=np.float64):
    return st_numpy.arrays(dtype, st.integers(1, 60), elements=elements)


FINITE = st.floats(-1e300, 1e300)  # denormals and both zeros included
TIED = st.sampled_from([-1.0, -0.0, 0.0, 5e-324, 1.0, 1.0000000000000002])


@settings(max_examples=100, deadline=None)
@given(scores_of(FINITE) | scores_of(TIED), scores_of(FINITE) | scores_of(TIED))
def test_random_and_tied_scores_against_sklearn(targets, nontargets):
    agree_with_sklearn(targets, nontargets)


@settings(max_examples=50, deadline=None)
@given(scores_of(st.integers(-5, 5), np.int16), scores_of(st.integers(-5, 5), np.int64))
def test_integer_scores_against_sklearn(targets, nontargets):
    agree_with_sklearn(targets, nontargets)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 30]), st.sampled_from([0, 1, 3]), st.booleans())
def test_imbalance_against_sklearn(seed, n_few, decimals, few_targets):
    generator = np.random.default_rng(seed)
    few, many = generator.normal(1, 1, n_few).round(decimals), generator.normal(0, 1, 20_000).round(decimals)
    agree_with_sklearn(*((few, many) if few_targets else (many, few)))


@settings(max_examples=60, deadline=None)
@given(scores_of(TIED), scores_of(TIED))
def test_hull_and_min_cllr(targets, nontargets):
    p_miss, p_false_alarm, _ = hull_curve(targets, nontargets)
    # Brute force: the ROC-convex-hull EER is the highest of the minimum error rates over all priors.
    all_miss, all_fa = sklearn_rates(targets, nontargets)
    priors = np.linspace(0, 1, 2001)[:, None]
    expected = (priors * all_miss + (1 - priors) * all_fa).min(axis=1).max()
    eer = equal_error_rate(targets, nontargets, convex_hull=True)[0]
    assert expected - 1e-12 <= eer <= expected + 1e-3
    assert eer <= min(equal_error_rate(targets, nontargets)[0], 0.5) + 1e-12
    slopes = (
        np.diff(p_miss)[:-1] * np.diff(p_false_alarm)[1:] - np.diff(p_miss)[1:] * np.diff(p_false_alarm)[:-1]
    )
    assert (slopes >= -1e-12).all()
    least = min_cllr(targets, nontargets)
    assert 0 <= least <= 1 + 1e-12
    for scale, offset in ((0, 0), (1, 0), (3, -1), (0.5, 0.2)):
        assert least <= cllr(scale * targets + offset, scale * nontargets + offset) + 1e-9


def test_min_cllr_against_isotonic_regression_of_sklearn():
    from sklearn.isotonic import IsotonicRegression

    generator = np.random.default_rng(6)
    targets, nontargets = generator.normal(1.5, 1, 400).round(2), generator.normal(0, 1, 900).round(2)
    labels = np.repeat([1.0, 0.0], [400, 900])
    scores = np.concatenate([targets, nontargets])
    posterior = IsotonicRegression(y_min=0, y_max=1).fit_transform(scores, labels)
    with np.errstate(divide="ignore"):
        llr = np.log(posterior) - np.log1p(-posterior) - np.log(400 / 900)
    expected = np.logaddexp(0, -llr[:400]).mean() + np.logaddexp(0, llr[400:]).mean()
    assert min_cllr(targets, nontargets) == pytest.approx(expected / (2 * math.log(2)))
    assert min_cllr([1, 2], [-1, 0]) == 0 and min_cllr([0, 0], [0]) == 1 and min_cllr([-1], [1]) == 1


def test_miss_rate_at_known_values():
    targets, nontargets = [0.5, 0.6, 0.7, 0.9], np.arange(100) / 100
    assert miss_rate_at(targets, nontargets, 0.1) == (0.75, 0.9)
    assert miss_rate_at(targets, nontargets, 0.099) == (1.0, 0.91)
    assert miss_rate_at(targets, nontargets, 1)[0] == 0 and miss_rate_at([0], [1], 0)[0] == 1
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="false_alarm_rate"):
            miss_rate_at(targets, nontargets, rate)


def test_against_speechbrain():
    generator = np.random.default_rng(7)
    targets = torch.tensor(generator.normal(2, 1, 400), dtype=torch.float32)
    nontargets = torch.tensor(generator.normal(0, 1, 1200), dtype=torch.float32)
    # Its EER is the mean of the two rates where they are nearest, over thresholds between the scores.
    assert equal_error_rate(targets, nontargets)[0] == pytest.approx(EER(targets, nontargets)[0], abs=1 / 400)
    unnormalised = minDCF(targets, nontargets, c_miss=1, c_fa=1, p_target=0.01)[0]
    assert min_dcf(targets, nontargets)[0] == pytest.approx(unnormalised / 0.01, abs=1e-4)


def test_the_largest_numbers():
    highest = np.finfo(np.float64).max
    assert equal_error_rate([highest], [-highest]) == (0, highest)
    assert det_curve([highest], [0.0])[2].tolist() == [0, highest, math.inf]


@pytest.mark.parametrize(
    "metric",
    [
        equal_error_rate,
        lambda *scores, **more: equal_error_rate(*scores, convex_hull=True, **more),
        lambda *scores, **more: miss_rate_at(*scores, 0.1, **more),
        lambda *scores, **more: min_dcf(*scores, p_target=0.2, **more),
        lambda *scores, **more: act_dcf(*scores, p_target=0.2, **more),
        cllr,
        min_cllr,
    ],
)
def test_weights_count_as_repeated_trials(metric):
    generator = np.random.default_rng(3)
    targets, nontargets = generator.normal(2, 1.5, 60).round(1), generator.normal(0, 1.5, 80).round(1)
    weights = generator.integers(0, 4, 60), generator.integers(0, 4, 80)
    repeated = np.repeat(targets, weights[0]), np.repeat(nontargets, weights[1])
    found, expected = metric(targets, nontargets, weights=weights), metric(*repeated)
    assert np.allclose(np.atleast_1d(found)[0], np.atleast_1d(expected)[0], atol=1e-12)
    assert not np.allclose(np.atleast_1d(found)[0], np.atleast_1d(metric(targets, nontargets))[0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (([1], [1, 1]), "1 weights for 2 target scores"),
        (([1, -1], [1, 1]), "not negative"),
        (([1, 1], [0, 0]), "not all 0"),
        (([1, np.nan], [1, 1]), "finite"),
    ],
)
def test_impossible_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        equal_error_rate([1.0, 2.0], [0.0, 1.0], weights=weights)
