"""Text-dependent verification: the decision, and what was wrong."""

import dataclasses

import numpy as np
import pytest

from speechbrain_bccmt.inference.phrases import verify_phrase
from speechbrain_bccmt.inference.results import EmbeddedUtterance
from speechbrain_bccmt.inference.verifier import Verifier
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion

# Voice and phrase count alike; accepted from a fused score of 1.5 on.
FUSION = PhraseFusion(
    2,
    1.0,
    Calibration(scale=20.0, offset=-30.0, p_target=0.5),
    Calibration(scale=10.0, offset=-5.0, p_target=0.5),
    Calibration(scale=10.0, offset=-6.0, p_target=0.5),
)


def verifier():
    made = Verifier()
    made.phrase_fusion = FUSION
    return made


def utterance(voice_angle, phrase_angle, speech=1.0, length=1.0):
    """Return an embedding whose two parts point somewhere."""
    parts = (f(np.deg2rad(a)) for a in (voice_angle, phrase_angle) for f in (np.cos, np.sin))
    return EmbeddedUtterance("a.wav", length * np.array(list(parts), np.float32), 1.0, speech)


@pytest.mark.parametrize(
    ("voice", "phrase", "accepted", "reason"),
    [
        (10, 10, True, "right voice, right phrase"),
        (10, 90, False, "right voice, wrong phrase"),
        (90, 10, False, "wrong voice, right phrase"),
        (90, 90, False, "wrong voice, wrong phrase"),
        (45, 45, False, "right voice, uncertain phrase"),
        (0, 58, True, "right voice, right phrase"),  # together enough, though the phrase alone were not
    ],
)
def test_decision_and_reason(voice, phrase, accepted, reason):
    outcome = verify_phrase(verifier(), [utterance(0, 0)], [utterance(voice, phrase)])
    assert outcome.decision is accepted and outcome.reason == reason
    assert outcome.voice_score == pytest.approx(np.cos(np.deg2rad(voice)), abs=1e-6)
    assert outcome.phrase_score == pytest.approx(np.cos(np.deg2rad(phrase)), abs=1e-6)
    assert (outcome.probability > 0.5) is accepted


def test_utterances_of_a_side_count_alike_whatever_their_length():
    sides = [utterance(-30, 0, length=9.0), utterance(30, 0)], [utterance(0, 0)]
    assert verify_phrase(verifier(), *sides).voice_score == pytest.approx(1.0)


def test_a_side_without_speech_is_rejected():
    outcome = verify_phrase(verifier(), [utterance(0, 0)], [utterance(0, 0, speech=0.0)])
    assert not outcome.decision and outcome.reason == "wrong voice, wrong phrase" and outcome.probability == 0
    # It has no part in a side that has speech.
    outcome = verify_phrase(verifier(), [utterance(0, 0), utterance(90, 90, speech=0.0)], [utterance(0, 0)])
    assert outcome.voice_score == pytest.approx(1.0)


def test_a_model_without_phrases_is_refused():
    with pytest.raises(ValueError, match="no phrase_calibration.json, it knows voices alone"):
        verify_phrase(Verifier(), [utterance(0, 0)], [utterance(0, 0)])


def test_the_fusion_is_kept_in_a_file(tmp_path):
    FUSION.save(tmp_path / "phrase.json")
    assert PhraseFusion.load(tmp_path / "phrase.json") == FUSION
    for wrong in ('"voice_weight": -1', '"voice_weight": "much"'):
        text = (tmp_path / "phrase.json").read_text().replace('"voice_weight": 1.0', wrong)
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(ValueError, match="wrong.json.*voice_weight"):
            PhraseFusion.load(tmp_path / "wrong.json")


def test_swapped_labels_are_refused():
    rng = np.random.default_rng(0)
    same = rng.random(400) < 0.5
    scores = np.where(same, 0.2, 0.8) + 0.1 * rng.standard_normal(400)
    good = np.where(rng.random(400) < 0.5, 0.2, 0.8)
    with pytest.raises(ValueError, match="do not score higher"):
        PhraseFusion.fit(2, scores, good, same, good > 0.5, p_target=0.5)


def test_the_fusion_decides_better_than_the_voice_alone():
    rng = np.random.default_rng(1)
    speaker, phrase = rng.random((2, 2000)) < 0.5
    voice, said = (np.where(same, 0.7, 0.3) + 0.15 * rng.standard_normal(2000) for same in (speaker, phrase))
    fusion = PhraseFusion.fit(2, voice, said, speaker, phrase, p_target=0.5)
    assert fusion.both.eer < 0.15
    assert fusion.both.n_target == (speaker & phrase).sum()
    assert dataclasses.replace(fusion, voice_weight=2.0).fuse(1.0, 0.5) == 2.5
