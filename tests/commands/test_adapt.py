"""`bccmt adapt` on real speech, and what becomes of it when it cannot."""

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.inference.model_files import CENTRED_CALIBRATION_FILE
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.models import resolve_model
from speechbrain_bccmt.scoring.quality_fusion import load_calibration


def run(*arguments):
    return CliRunner().invoke(cli.main, ["adapt", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(speech_data, tmp_path_factory):
    """One utterance of each of 12 speakers."""
    out = tmp_path_factory.mktemp("recordings")
    for speaker in sorted((speech_data / "an4" / "wav").iterdir())[:12]:
        path = min(speaker.rglob("*.*"))
        (out / f"{speaker.name}{path.suffix}").symlink_to(path)
    return out


@pytest.fixture(scope="module")
def adapted(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "an4"
    result = run(out, folder, "--quiet", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["recordings"] == 12 and 5 <= found["voices"] <= 12 and found["model"] == str(out)
    return out, found["voices"]


def test_both_engines_have_the_centre_taken_off(folder, adapted):
    out, voices = adapted
    before, after = GraphVerifier.load("tiny"), GraphVerifier.load(out)
    network = SpeakerVerification.from_hparams(str(out))
    shifts = []
    for path in sorted(folder.iterdir())[:4]:
        embeddings = [model.embed_file(path).embedding for model in (before, after, network)]
        shifts.append(embeddings[0] - embeddings[1])
        assert embeddings[1] == pytest.approx(embeddings[2], abs=2e-3)
    # One shift for all, and a good part of what the recordings have in common.
    assert np.ptp(shifts, axis=0).max() < 2e-3
    everything = np.mean([before.embed_file(path).embedding for path in folder.iterdir()], axis=0)
    assert 0.2 < shifts[0] @ everything / (everything @ everything) < voices / (voices + 10) + 0.2
    assert after.fingerprint == network.fingerprint != before.fingerprint


def test_its_calibration_is_the_one_for_centred_embeddings(adapted):
    found = GraphVerifier.load(adapted[0])
    assert found.calibration == load_calibration(resolve_model("tiny") / CENTRED_CALIBRATION_FILE)
    assert "speechocean762" in found.sequential.fitted_on and "speechocean762" in found.open_set.fitted_on


def test_voiceprints_of_before_are_refused(adapted, folder, tmp_path):
    path = next(folder.iterdir())
    store = tmp_path / "voices.db"
    assert CliRunner().invoke(cli.main, ["enroll", str(store), "ada", str(path), "--quiet"]).exit_code == 0
    other = CliRunner().invoke(cli.main, ["identify", str(store), str(path), "-m", str(adapted[0]), "--quiet"])
    assert other.exit_code == 2 and "reenroll" in other.stderr


def test_what_cannot_be_used_is_named_and_left_out(folder, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000), 16000)
    (tmp_path / "text.wav").write_text("no audio")
    result = run(tmp_path / "out", folder, tmp_path / "silence.wav", tmp_path / "text.wav", "--quiet")
    assert result.exit_code == 2 and (tmp_path / "out" / "config.json").is_file()
    assert "silence.wav: has no speech: left out" in result.stderr and "text.wav" in result.stderr


def test_mistakes_are_told(folder, tmp_path):
    one = next(folder.iterdir())
    for files, message in (([one] * 3, "of 1 voice"), ([tmp_path / "none.wav"], "none.wav")):
        result = run(tmp_path / "out", *files, "--quiet")
        assert result.exit_code == 2 and message in result.stderr
        assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    result = run(tmp_path / "full", folder, "--quiet")
    assert result.exit_code == 2 and "not empty" in result.stderr
