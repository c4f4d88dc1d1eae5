"""What is said of a recording at enrolment, and who is known in an open set."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.open_set import OpenSet
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.voiceprints.guidance import Enrolment
from speechbrain_bccmt.voiceprints.open_set import identify_open_set
from speechbrain_bccmt.voiceprints.records import Reference
from speechbrain_bccmt.voiceprints.store import Voiceprints

CALIBRATION = Calibration(20.0, -6.0, p_target=0.5)  # alike from a cosine of 0.3


def utterance(*vector, **changes):
    values = {
        "speech_seconds": 4.0,
        "level": -20.0,
        "noise_ratio": 40.0,
        "clipped_share": 0.0,
        "bandwidth": 8000.0,
    }
    return SimpleNamespace(embedding=np.array(vector or (1.0, 0.0), np.float32), **(values | changes))


@pytest.mark.parametrize(
    ("changes", "accepted", "reason"),
    [
        ({}, True, None),
        ({"speech_seconds": 0.0}, False, "no speech"),
        ({"speech_seconds": 0.6}, True, "too little speech, 0.6 s"),
        ({"level": -52.0}, True, "too quiet, -52 dBFS"),
        ({"level": -44.0}, True, None),
        ({"clipped_share": 0.03}, True, "clipped, 3 % of it"),
        ({"noise_ratio": 9.0}, True, "too noisy, speech only 9 dB above its pauses"),
        ({"noise_ratio": math.inf}, True, None),
        ({"noise_ratio": math.nan, "level": math.nan}, True, None),  # not measured: whole recordings
        ({"bandwidth": 4000.0}, True, "narrow band (telephone), nothing above 4 kHz"),
    ],
)
def test_reasons(changes, accepted, reason):
    advice = Enrolment(CALIBRATION).add(utterance(**changes))
    assert advice.accepted == accepted and advice.reasons == (() if reason is None else (reason,))


def test_percent_and_voices():
    enrolment = Enrolment(CALIBRATION)
    assert enrolment.percent == 0 and enrolment.add(utterance(1, 0)).percent == 40
    assert enrolment.add(utterance(1, 0)).percent == 40  # the same again
    other = enrolment.add(utterance(0, 1, level=-60.0))
    assert not other.accepted and other.reasons == ("another voice than before", "too quiet, -60 dBFS")
    assert enrolment.add(utterance(1, 0.5)).percent == 80
    both = enrolment.add(utterance(1, 0.2), second_voice="2.0 to 4.0 s")
    assert not both.accepted and both.reasons == ("two voices: 2.0 to 4.0 s",) and both.percent == 80
    assert enrolment.add(utterance(0, 1), "2.0 to 4.0 s", force=True) == (
        type(both)(True, 100, ("another voice than before", "two voices: 2.0 to 4.0 s"))
    )
    assert len(enrolment.taken) == 3


def test_all_say_one_phrase():
    part = Calibration(10.0, -5.0, p_target=0.5)
    enrolment = Enrolment(phrases=PhraseFusion(2, 1.0, part, part, part))
    assert enrolment.add(utterance(1, 0, 0, 1)).accepted
    for vector, reasons in (
        ((1, 0, 1, 0), ("another phrase than before",)),
        ((0, 1, 0, 1), ("another voice than before",)),
        ((0, 1, 1, 0), ("another voice than before", "another phrase than before")),
    ):
        advice = enrolment.add(utterance(*vector))
        assert not advice.accepted and advice.reasons == reasons
    assert enrolment.add(utterance(0.9, 0.1, 0.1, 0.9)).accepted and len(enrolment.taken) == 2


def test_what_was_enrolled_before_counts():
    vectors = np.array([[1.0, 0.0], [1.0, 0.1]], np.float32)
    before = Reference("ada", vectors, np.array([2.0, 3.0]), ("", ""), np.full(2, 8000.0))
    enrolment = Enrolment(CALIBRATION, before)
    assert enrolment.percent == 50 and not enrolment.add(utterance(0, 1)).accepted
    assert enrolment.add(utterance(1, 0.2)).percent == 90
    assert Enrolment(None, before).add(utterance(0, 1)).accepted  # nothing to compare by


@pytest.fixture
def prints(tmp_path):
    prints = Voiceprints(tmp_path / "store", "0123456789abcdef")
    for number, name in enumerate(("ada", "bela", "carl")):
        prints.enroll(name, np.eye(4)[number : number + 1], [3.0])
    return prints


KNOWN = OpenSet((0.05, 0.01), (1, 3, 1000), ((1.0, 2.0, 8.0), (4.0, 6.0, 12.0)), margin=2.0)
PROBE = side_quality([3.0])


@pytest.mark.parametrize(
    ("vector", "error", "speaker"),
    [
        ([1, 0, 0, 0], 0.01, "ada"),
        ([0, 0, 1, 0.5], 0.01, "carl"),
        ([0, 0, 0, 1], 0.05, None),  # like nobody
        ([0.5, 0, 0, 1], 0.05, "ada"),  # 0.447: a ratio of 2.9
        ([0.5, 0, 0, 1], 0.01, None),
        ([1, 0.9, 0, 0], 0.05, None),  # like two: 1.5 apart
        ([1, 0.8, 0, 0], 0.05, "ada"),
    ],
)
def test_open_set(prints, vector, error, speaker):
    found = identify_open_set(prints, vector, PROBE, CALIBRATION, KNOWN, error)
    assert found.speaker == speaker and len(found.candidates) == 3
    assert found.margin == pytest.approx(found.candidates[0].score - found.candidates[1].score)
    assert found.threshold == pytest.approx((KNOWN.threshold(3, error) + 6) / 20)
    assert identify_open_set(prints, vector, None, CALIBRATION, KNOWN, error).speaker is None  # silence


def test_more_names_ask_for_more(prints):
    probe = [0, 0, 1, 1.2]  # 0.64: a ratio of 6.8
    assert identify_open_set(prints, probe, PROBE, CALIBRATION, KNOWN).speaker == "carl"
    others = np.random.default_rng(0).normal(0, 1, (300, 4)) * [1, 1, 0, 0]
    prints.enroll_many((f"n{number}", row[None], [3.0], None) for number, row in enumerate(others))
    found = identify_open_set(prints, probe, PROBE, CALIBRATION, KNOWN)
    assert found.speaker is None and found.candidates[0].name == "carl" and found.threshold > 0.64
    assert len(identify_open_set(prints, probe, PROBE, CALIBRATION, KNOWN, n_best=1).candidates) == 1


def test_nobody_is_enrolled(tmp_path):
    prints = Voiceprints(tmp_path / "empty", "0123456789abcdef")
    prints.enroll("ada", [[1.0, 0.0]], [1.0])
    assert identify_open_set(prints, [1, 0], PROBE, CALIBRATION, KNOWN).margin == math.inf
    prints.delete("ada")
    found = identify_open_set(prints, [1, 0], PROBE, CALIBRATION, KNOWN)
    assert found.speaker is None and found.candidates == ()


@pytest.mark.parametrize("error", [0, 0.001, 1, math.nan])
def test_rates_that_cannot_be_promised(prints, error):
    with pytest.raises(ValueError, match="error rate"):
        identify_open_set(prints, [1, 0, 0, 0], PROBE, CALIBRATION, KNOWN, error)
