"""Error rates by type of trial, and the SdSV cost, against figures worked out by hand."""

import numpy as np
import pytest

from speechbrain_bccmt.evaluation.trial_types import (
    POOLED,
    SDSV_POOLED,
    format_type_table,
    sdsv_cost,
    summarise_types,
)
from speechbrain_bccmt.scoring import equal_error_rate, min_dcf

TYPES = ("target-correct", "target-wrong", "impostor-correct", "impostor-wrong")


@pytest.fixture
def scored():
    """Scores with a different mean for each type, and the types."""
    rng = np.random.default_rng(5)
    kind = rng.integers(4, size=4000)
    return rng.normal(np.array([3.0, 1.5, 1.0, -1.0])[kind], 1), kind


def test_each_type_is_judged_against_target_correct_alone(scored):
    scores, kind = scored
    table = summarise_types(scores, kind, TYPES, p_target=0.05)
    assert list(table) == [*TYPES[1:], POOLED, SDSV_POOLED]
    for name, pooled in {**{t: [t] for t in TYPES[1:]}, POOLED: TYPES[1:], SDSV_POOLED: TYPES[1:3]}.items():
        others = scores[np.isin(kind, [TYPES.index(t) for t in pooled])]
        targets = scores[kind == 0]
        assert (table[name]["eer"], table[name]["eer_threshold"]) == equal_error_rate(targets, others)
        assert table[name]["min_dcf"] == min_dcf(targets, others, p_target=0.05)[0]
        assert table[name]["sdsv_cost"] == min_dcf(targets, others, 0.01, 10, 1)[0]
        assert (table[name]["n_target"], table[name]["n_nontarget"]) == (len(targets), len(others))
    eers = [table[t]["eer"] for t in TYPES[1:]]
    assert eers == sorted(eers, reverse=True) and eers[2] < table[POOLED]["eer"] < eers[0]


def test_names_and_indices_in_any_order_mean_the_same(scored):
    scores, kind = scored
    names = np.array(TYPES)[kind]
    back = TYPES[::-1]
    assert summarise_types(scores, names) == summarise_types(scores, kind, TYPES)
    assert summarise_types(scores, 3 - kind, back) == summarise_types(scores, kind, TYPES)
    assert summarise_types(scores.tolist(), list(names)) == summarise_types(scores, kind, TYPES)


def test_the_cost_of_sdsv_is_normalised_by_a_tenth():
    # At threshold 0.5: one of four targets missed, one of a hundred non-targets accepted.
    targets, nontargets = [0.4, 0.7, 0.8, 0.9], [0.6] + [0.1] * 99
    by_hand = [
        (10 * 0.01 * miss + 0.99 * accepted) / 0.1 for miss, accepted in ((0.25, 0.01), (0.25, 0), (0, 0.01))
    ]
    assert sdsv_cost(targets, nontargets)[0] == pytest.approx(min(by_hand))
    assert sdsv_cost([0.0], [1.0, 1.0])[0] == 1.0


def test_types_that_do_not_occur_have_no_row():
    table = summarise_types([2.0, 1.0], ["target-correct", "impostor-wrong"])
    assert list(table) == ["impostor-wrong", POOLED]
    table = summarise_types([2.0, 1.0, 0.0], ["target-correct", "target-wrong", "impostor-correct"])
    assert SDSV_POOLED not in table


def test_the_table_has_a_row_a_type(scored):
    lines = format_type_table(summarise_types(*scored, TYPES)).splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert lines[1].startswith("target-wrong ") and "SdSV cost" in lines[0]


@pytest.mark.parametrize(
    ("scores", "kinds", "message"),
    [
        ([1.0, 2.0], ["target-correct"], "types of trials"),
        ([1.0], ["target-wrong"], "no target-correct trials"),
        ([1.0], ["target-correct"], "only target-correct trials"),
        ([], [], "no target-correct trials"),
        ([1.0, 2.0], ["target-correct", "nontarget"], "'nontarget'"),
        ([1.0, 2.0], [0, 4], "indices 0 to 4"),
        ([1.0, 2.0], [0, -1], "indices -1 to 0"),
        ([1.0, np.nan], [0, 1], "NaN"),
    ],
)
def test_what_cannot_be_judged_is_told(scores, kinds, message):
    with pytest.raises(ValueError, match=message):
        summarise_types(scores, kinds)
