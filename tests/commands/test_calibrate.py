"""`bccmt calibrate` on folders of noise-like voices whose scores are known to separate, or not."""

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion, load_calibration
from tests.voices import voice


def run(*arguments):
    return CliRunner().invoke(cli.main, ["calibrate", *map(str, arguments)])


@pytest.fixture(scope="module")
def recordings(speech_data, tmp_path_factory):
    """Eight speakers of four utterances, linked from real speech."""
    folder = tmp_path_factory.mktemp("recordings")
    for speaker in sorted((speech_data / "speechocean762" / "wav").iterdir())[-8:]:
        (folder / speaker.name).mkdir()
        for path in sorted(speaker.rglob("*.opus"))[:4]:
            (folder / speaker.name / path.name).symlink_to(path)
    return folder


def test_it_shows_what_it_would_change(recordings, tmp_path):
    out = tmp_path / "calibration.json"
    result = run(recordings, "-o", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert "8 speakers, 32 recordings: 48 target and 448 non-target trials" in result.stdout
    assert "threshold" in result.stdout and "false alarms" in result.stdout and str(out) in result.stdout
    found = json.loads(run(recordings, "--json", "--quiet").stdout)
    assert {"model", "new"} <= found.keys() and found["new"]["act_dcf"] <= found["model"]["act_dcf"] + 0.05
    new, own = load_calibration(out), load_calibration_of_tiny()
    assert isinstance(new, QualityFusion) and new.ranges == own.ranges
    # Quality keeps its weight against the score.
    assert np.allclose(
        np.array(new.lower) / new.calibration.scale, np.array(own.lower) / own.calibration.scale
    )


def load_calibration_of_tiny():
    from speechbrain_bccmt.inference.model_folder import load_speaker_model

    return load_speaker_model().calibration


def test_another_prior_moves_the_threshold(recordings):
    strict, loose = (
        json.loads(run(recordings, "--json", "--quiet", "--p-target", prior).stdout)["new"]["threshold"]
        for prior in (0.001, 0.5)
    )
    assert strict > loose


def test_too_little_is_refused(recordings, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for speaker in sorted(recordings.iterdir())[:3]:
        (few / speaker.name).symlink_to(speaker)
    result = run(few, "--quiet")
    assert result.exit_code == 2 and "of 3 speakers" in result.stderr and "5 speakers" in result.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(empty).exit_code == 2
    assert "no folder of recordings for each speaker" in run(empty).stderr


def test_speakers_that_cannot_be_told_apart_are_refused(tmp_path):
    for speaker in range(6):
        folder = tmp_path / f"s{speaker}"
        folder.mkdir()
        for take in range(4):
            soundfile.write(folder / f"{take}.wav", voice(1.0, seed=4 * speaker + take), 16000)
    result = run(tmp_path, "--quiet")
    assert result.exit_code == 2 and "no threshold tells these speakers apart" in result.stderr
