"""`bccmt verify`: the sides, the exit codes, and what it prints."""

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import CALIBRATION, voice


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "hub", CALIBRATION)


@pytest.fixture(scope="module")
def model(folder):
    return SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.fixture
def files(tmp_path):
    """Three recordings, the last one in a folder of its own with another."""
    (tmp_path / "several").mkdir()
    names = ["a.wav", "b.flac", "several/c.wav", "several/d.wav"]
    for seed, name in enumerate(names):
        soundfile.write(tmp_path / name, voice(0.5 + seed / 10, seed), 16000)
    (tmp_path / "several" / "notes.txt").write_text("no recording")
    return [str(tmp_path / name) for name in names]


def run(*arguments, stdin=None):
    result = CliRunner().invoke(cli.main, ["verify", "-m", *map(str, arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_json_is_what_the_interface_says(folder, model, files):
    result = run(folder, *files[:2], "--json")
    outcome = model.verify_files(*files[:2])
    told = json.loads(result.stdout)
    assert told["score"] == pytest.approx(outcome.score, abs=1e-6)
    assert told["probability"] == pytest.approx(outcome.probability, abs=1e-6)
    assert told["llr"] == pytest.approx(outcome.llr, abs=1e-6)
    assert told["threshold"] == pytest.approx(0.3)
    assert told["decision"] == ("same" if outcome.decision else "different")
    assert result.exit_code == (0 if outcome.decision else 1)
    assert told["enrolment"] == files[:1] and told["test"] == files[1:2]
    assert told["seconds"] == {files[0]: 0.5, files[1]: 0.6} and told["warnings"] == []
    assert result.stderr == ""


def test_exit_codes(folder, files):
    score = json.loads(run(folder, *files[:2], "--json").stdout)["score"]
    below, above = (
        run(folder, *files[:2], "--threshold", score - 1e-3),
        run(folder, *files[:2], "--threshold", 1.1),
    )
    assert (below.exit_code, above.exit_code) == (0, 1)
    assert "same speaker" in below.stdout and "different speakers" in above.stdout
    assert (
        f"{score:.4f} (threshold 1.1000)" in above.stdout
        and "a.wav (0.50 s of speech in 0.50 s)" in above.stdout
    )


def test_several_on_a_side(folder, model, files, tmp_path):
    expected = model.verify_files(files[2:], files[0]).score
    several = tmp_path / "several"
    options = ("--json", "--threshold", "0.3")
    for arguments in (
        (several, files[0]),
        (tmp_path / "several" / "*.wav", files[0]),
        ("--enrol", files[2], "--enrol", files[3], files[0]),
        ("--enrol", several, files[0]),
    ):
        told = json.loads(run(folder, *arguments, *options).stdout)
        assert told["enrolment"] == files[2:] and told["test"] == files[:1]
        assert told["score"] == pytest.approx(expected, abs=1e-6)
    told = json.loads(run(folder, "--enrol", files[0], *files[2:], *options).stdout)
    assert told["enrolment"] == files[:1] and told["test"] == files[2:]
    assert told["score"] == pytest.approx(expected, abs=1e-6)


def test_without_calibration(files, tmp_path):
    plain = write_hub_folder(tmp_path / "plain")
    result = run(plain, *files[:2])
    assert (
        result.exit_code == 2
        and "ships no calibration.json" in result.stderr
        and "--threshold" in result.stderr
    )
    result = run(plain, *files[:2], "--threshold", "0.5", "--json")
    assert json.loads(result.stdout)["probability"] is None and result.exit_code in (0, 1)
    assert "probability" not in run(plain, *files[:2], "--threshold", "0.5").stdout


def test_warnings_go_to_standard_error(folder, files, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    result = run(folder, tmp_path / "silent.wav", files[0], "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("warning: ") and "silent.wav: no speech" in result.stderr
    assert len(json.loads(result.stdout)["warnings"]) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "expected two recordings, got 0"),
        (["a.wav"], "expected two recordings, got 1"),
        (["a.wav", "b.wav", "c.wav"], "expected two recordings, got 3; several on side A go by --enrol"),
        (["--enrol", "a.wav"], "expected recordings to compare"),
        (["-", "a.wav"], "- does not say which side"),
        (["a.wav", "b.wav", "--threshold", "nan"], "--threshold is nan"),
        (["a.wav", "b.wav", "--threshold", "high"], "not a valid float"),
        (["no*match", "b.wav"], "no*match: matches no file"),
    ],
)
def test_misuse(folder, arguments, told):
    result = run(folder, *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert told in result.stderr
