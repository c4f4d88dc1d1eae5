"""A second voice in a recording: found, placed, and not cried where there is none."""

import math

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.inference.voices import check_voices, compare_windows
from speechbrain_bccmt.scoring.calibration import Calibration
from tests.tiny_hub_folder import write_hub_folder

RATE = 16000


@pytest.fixture(scope="module")
def model():
    return SpeakerVerification.from_hparams(run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def people(speech_data):
    """Read some 10 s of a woman and of a man."""
    folders = sorted((speech_data / "speechocean762" / "wav").iterdir())[5:25:10]
    return [
        np.concatenate([read_mono(path, RATE) for path in sorted(folder.rglob("*.*"))[:4]])[: 10 * RATE]
        for folder in folders
    ]


@pytest.mark.usefixtures("detector")
def test_real_voices(model, people, tmp_path):
    for number, wav in enumerate(people):
        soundfile.write(tmp_path / f"{number}.wav", wav, RATE)
        check = check_voices(model, tmp_path / f"{number}.wav")
        assert check.llr > -1 and check.times == () and check.places is None
    soundfile.write(tmp_path / "both.wav", np.concatenate([people[0], people[1][: 5 * RATE]]), RATE)
    check = check_voices(model, tmp_path / "both.wav")
    assert check.llr < -1
    (start, stop) = check.times[0][0], check.times[-1][1]
    assert start == pytest.approx(10, abs=2.5) and stop == pytest.approx(15, abs=1)
    assert check.places.startswith(f"{start:.1f} to ")


@pytest.mark.parametrize("order", [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 1, 1]])
def test_the_rarer_voice_is_placed(order):
    rng = np.random.default_rng(0)
    voices = np.eye(8)[:2]
    vectors = np.stack([voices[number] + rng.normal(0, 0.05, 8) for number in order])
    places = np.array([[2 * number, 2 * number + 2] for number in range(len(order))])
    check = compare_windows(Calibration(20.0, -6.0), places, vectors)
    expected = []
    for number, voice in enumerate(order):
        if voice and expected and expected[-1][1] == 2 * number:
            expected[-1] = (expected[-1][0], 2 * number + 2)
        elif voice:
            expected.append((2 * number, 2 * number + 2))
    assert check.times == tuple(expected)


def test_one_voice_and_too_little(model, tmp_path):
    vectors = np.eye(8)[0] + np.random.default_rng(0).normal(0, 0.02, (9, 8))
    places = np.array([[2 * number, 2 * number + 2] for number in range(9)])
    assert compare_windows(Calibration(20.0, -6.0), places, vectors).times == ()
    assert compare_windows(Calibration(20.0, -6.0), places[:2], np.ones((2, 8))).times == ()
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    assert math.isnan(check_voices(model, tmp_path / "a.wav").llr)


def test_without_calibration(tmp_path):
    model = SpeakerVerification.from_hparams(write_hub_folder(tmp_path / "hub"), run_opts={"device": "cpu"})
    with pytest.raises(ValueError, match="calibration"):
        check_voices(model, tmp_path / "a.wav")
