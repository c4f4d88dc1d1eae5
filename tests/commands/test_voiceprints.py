"""`bccmt voiceprints`: moving stores, and enrolling anew with another model."""

import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import voice


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for seed, name in enumerate(("ada", "bela")):
        (folder / name).mkdir()
        for take in range(2):
            soundfile.write(folder / name / f"{take}.wav", voice(0.8 + take / 10, seed), 16000)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "hub")


def run(*arguments):
    result = CliRunner().invoke(cli.main, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def store(model, speech, tmp_path, monkeypatch):
    monkeypatch.chdir(speech)
    for name in ("ada", "bela"):
        assert run("enroll", "-m", model, tmp_path / "voices", name, name).exit_code == 0
    monkeypatch.chdir(tmp_path)
    return tmp_path / "voices"


def test_export_and_import(store, tmp_path):
    assert "exported 2 speakers" in run("voiceprints", "export", store, tmp_path / "all.json.gz").output
    for expected in ("added 4 utterances", "added 0 utterances"):
        assert expected in run("voiceprints", "import", tmp_path / "all.json.gz", tmp_path / "other").output
    assert Voiceprints(tmp_path / "other").speakers() == Voiceprints(store).speakers()


def test_reenrolment_from_the_recordings(store, model, speech, tmp_path):
    refused = run("identify", store, speech / "ada" / "0.wav")
    assert refused.exit_code == 2 and "bccmt voiceprints reenroll" in refused.stderr
    gone = speech / "bela" / "1.wav"
    gone.rename(speech / "moved.wav")
    arguments = ("voiceprints", "reenroll", store, tmp_path / "new", "-m", "tiny", "--archive", tmp_path / "kept")
    try:
        result = run(*arguments)
    finally:
        (speech / "moved.wav").rename(gone)
    assert result.exit_code == 2 and "enrolled 3 utterances" in result.stdout
    assert f"error: bela: utterance '{gone}': there is no file" in result.stderr
    again = run(*arguments)
    assert again.exit_code == 0 and "enrolled 1 utterance in" in again.stdout and "3 were there" in again.stdout
    new = Voiceprints(tmp_path / "new")
    assert [(one.name, one.utterances) for one in new.speakers()] == [("ada", 2), ("bela", 2)]
    assert new.model()[0] != Voiceprints(store).model()[0]
    assert [one.file for one in new.utterances()] == [one.file for one in Voiceprints(store).utterances()]
    # As if they had been enrolled by that model at once.
    for name in ("ada", "bela"):
        assert run("enroll", tmp_path / "direct", name, speech / name).exit_code == 0
    for one, other in zip(new.utterances(), Voiceprints(tmp_path / "direct").utterances(), strict=True):
        assert one.name == other.name and one.seconds == pytest.approx(other.seconds)
        assert one.embedding == pytest.approx(other.embedding, abs=1e-3)
    same = run(*arguments[:2], tmp_path / "new", tmp_path / "newer", "-m", "tiny")
    assert same.exit_code == 2 and "are of model" in same.stderr and "already" in same.stderr


def test_what_cannot_be_done_is_told_in_a_line(store, tmp_path):
    for arguments, message in (
        (("export", store, "all.txt"), "all.txt: its ending is none of .json"),
        (("export", "nowhere", "all.json"), "there is no such store"),
        (("import", "nowhere.json", store), "nowhere.json"),
        (("import", store, "other"), "is no file of voiceprints"),
        (("index", store), "a file is searched without an index"),
        (("reenroll", "redis://x", "new"), "redis://x: is no store of voiceprints"),
    ):
        result = run("voiceprints", *arguments)
        assert result.exit_code == 2 and message in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1 or "Usage" in result.stderr
    assert run("voiceprints", "purge", store).exit_code == 0


def test_a_store_in_postgresql(store, server, speech, model, tmp_path):
    url = f"{server[0]}&schema=commands"
    run("voiceprints", "export", store, tmp_path / "all.json")
    assert "added 4 utterances" in run("voiceprints", "import", tmp_path / "all.json", url).output
    assert run("voiceprints", "index", url).exit_code == 0
    found = run("identify", "-m", model, url, speech / "ada" / "0.wav", "--threshold", 0.9)
    assert found.exit_code == 0 and "ada (threshold" in found.stdout
    assert "deleted ada (2 utterances)" in run("enroll", "--delete", "ada", url).output
    assert run("voiceprints", "purge", url).exit_code == 0
    assert run("enroll", "-m", model, url, "ada", speech / "ada").exit_code == 0
