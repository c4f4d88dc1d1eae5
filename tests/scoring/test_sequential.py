"""Sequential decisions keep the error rate that was asked for, over all looks at a stream."""

import numpy as np
import pytest

from speechbrain_bccmt.scoring.open_set import OpenSet
from speechbrain_bccmt.scoring.sequential import SequentialTest, decision_times


def streams(number, seed, dependence=0.9, looks=30):
    """Return log-likelihood ratios of streams, correct at each look alone, with dependent looks, and the targets."""
    rng = np.random.default_rng(seed)
    target = np.arange(number) % 2 == 0
    noise = np.zeros((number, looks))
    noise[:, 0] = rng.normal(0, 1, number)
    for look in range(1, looks):
        noise[:, look] = dependence * noise[:, look - 1] + np.sqrt(1 - dependence**2) * rng.normal(
            0, 1, number
        )
    strength = np.sqrt(np.linspace(1, 8, looks))  # d' of each look
    return strength * noise + np.where(target, 0.5, -0.5)[:, None] * strength**2, target


@pytest.mark.parametrize("dependence", [0.0, 0.9, 0.99])
def test_what_is_promised_is_kept_on_other_streams(dependence):
    ratios, target = streams(20000, 0, dependence)
    test = SequentialTest.fit(list(ratios), target)
    others, same = streams(20000, 1, dependence)
    for error in test.errors:
        accepted, rejected = decision_times(others, *test.thresholds(error))
        wrong = (accepted < rejected)[~same].mean(), (rejected < accepted)[same].mean()
        assert all(0.5 * error - 0.002 < rate < 1.3 * error + 0.002 for rate in wrong), (error, wrong)


def test_decisions_in_order():
    table = np.array([[1.0, 5.0, -9.0], [-5.0, 9.0, 9.0], [0.0, np.nan, np.nan]])
    accepted, rejected = decision_times(table, 4.0, -4.0)
    assert accepted.tolist() == [1, 1, np.inf] and rejected.tolist() == [2, 0, np.inf]


def test_weights_and_streams_of_any_length():
    ratios = [np.array([0.0, 0.5]), np.array([9.0]), *[np.array([-1.0])] * 98, *[np.array([2.0, 3.0])] * 100]
    target = np.arange(200) >= 100
    even = SequentialTest.fit(ratios, target, errors=[0.02])
    weights = np.ones(200)
    weights[1] = 50
    assert even.accept[0] < 9 < SequentialTest.fit(ratios, target, weights, [0.02]).accept[0]


@pytest.mark.parametrize("error", [0.1, 0.07, 0.05, 0.01, 0.3])
def test_between_fitted_rates(error):
    test = SequentialTest((0.1, 0.05, 0.01), (1.0, 2.0, 4.0), (-1.0, -3.0, -5.0))
    accept, reject = test.thresholds(error)
    assert 1 <= accept <= 4 and -5 <= reject <= -1
    assert test.thresholds(0.3) == (1.0, -1.0) and test.decide(accept, error) is True
    assert test.decide(reject, error) is False and test.decide((accept + reject) / 2, error) is None


@pytest.mark.parametrize(
    "values",
    [
        ((), (), ()),
        ((0.1,), (1.0, 2.0), (0.0,)),
        ((0.1, 0.2), (1.0, 1.0), (0.0, 0.0)),
        ((0.1,), (0.0,), (1.0,)),
        ((0.6,), (1.0,), (0.0,)),
        ((0.0,), (1.0,), (0.0,)),
        ((0.1,), (np.nan,), (0.0,)),
    ],
)
def test_tests_that_cannot_be(values):
    with pytest.raises(ValueError):
        SequentialTest(*values)


def test_too_few_streams():
    with pytest.raises(ValueError, match="99 streams of others are too few"):
        SequentialTest.fit([np.zeros(1)] * 299, np.arange(299) >= 99, errors=[0.01])


@pytest.mark.parametrize(
    "kind", [SequentialTest.wald(), OpenSet((0.1, 0.01), (1, 9), ((1.0, 2.0), (3.0, 4.0)), 0.5)]
)
def test_kept_as_json(tmp_path, kind):
    kind.save(tmp_path / "a.json")
    assert type(kind).load(tmp_path / "a.json") == kind
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="a.json"):
        type(kind).load(tmp_path / "a.json")


def test_open_set_keeps_its_rate_in_every_corpus():
    rng = np.random.default_rng(0)
    best = {n: [rng.normal(shift, 1, (5000, n)).max(axis=1) for shift in (0, 1)] for n in (1, 10, 100)}
    known = OpenSet.fit(best, [0.05, 0.01])
    for n in (1, 10, 100):
        rates = [
            (rng.normal(shift, 1, (5000, n)).max(axis=1) >= known.threshold(n, 0.05)).mean()
            for shift in (0, 1)
        ]
        assert rates[1] == pytest.approx(0.05, abs=0.015) and rates[0] < rates[1]
    assert known.threshold(10, 0.05) < known.threshold(30, 0.05) < known.threshold(100, 0.05)
    assert known.threshold(10**6, 0.01) > known.threshold(100, 0.01)


@pytest.mark.parametrize(("names", "error"), [(1, 0.01), (10, 0.05), (1000, 0.001)])
def test_the_bound_holds_for_exact_ratios(names, error):
    """Takes the best of many strangers' scores, normal with d' = 2."""
    best = 2 * np.random.default_rng(0).normal(0, 1, (20000, names)).max(axis=1) - 2
    assert (best >= OpenSet.bound().threshold(names, error)).mean() <= error


@pytest.mark.parametrize(
    "values",
    [
        ((), (1,), ()),
        ((0.1,), (), ((),)),
        ((0.1,), (2, 1), ((1.0, 1.0),)),
        ((0.1,), (0,), ((1.0,),)),
        ((0.1,), (1, 2), ((1.0,),)),
        ((0.1,), (1,), ((np.nan,),)),
        ((0.1,), (1,), ((1.0,),), -1.0),
    ],
)
def test_open_sets_that_cannot_be(values):
    with pytest.raises(ValueError):
        OpenSet(*values)
