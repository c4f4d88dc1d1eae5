"""`bccmt enroll` and `bccmt identify`: from recordings to names."""

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.inference.fingerprint import fingerprint
from speechbrain_bccmt.inference.verification import SpeakerVerification
from speechbrain_bccmt.scoring.calibration import Calibration
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import voice


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "hub")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for name, seed in (("ada", 1), ("bela", 2), ("carl", 3)):
        (folder / name).mkdir()
        for take in range(2):
            soundfile.write(folder / name / f"{take}.wav", voice(0.8 + take / 10, seed), 16000)
    soundfile.write(folder / "silence.wav", np.zeros(16000), 16000)
    (folder / "text.wav").write_text("no audio")
    return folder


@pytest.fixture
def store(tmp_path):
    return tmp_path / "voices.sqlite"


@pytest.fixture
def enrolled(model, store, speech):
    for name in ("ada", "bela"):
        assert run("enroll", "-m", model, store, name, speech / name).exit_code == 0
    return store


def run(*arguments, stdin=None):
    result = CliRunner().invoke(cli.main, [*map(str, arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def candidates(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_enrolled_speakers_are_identified(model, enrolled, speech):
    files = [speech / "bela" / "1.wav", speech / "ada" / "0.wav"]
    result = run("identify", "-m", model, enrolled, *files, "--threshold", 0.0, "--json")
    found = candidates(result)
    assert result.exit_code == 0
    assert [entry["speaker"] for entry in found] == ["bela", "ada"]
    assert [entry["file"] for entry in found] == list(map(str, files))
    verification = SpeakerVerification.from_hparams(model, run_opts={"device": "cpu"})
    expected = verification.verify_files(sorted((speech / "ada").iterdir()), files[1], threshold=0.0)
    (score,) = (c["score"] for c in found[1]["candidates"] if c["name"] == "ada")
    assert score == pytest.approx(float(expected.score), abs=1e-5)


def test_unknown_below_the_threshold(model, enrolled, speech):
    result = run(
        "identify", "-m", model, enrolled, speech / "ada", "--threshold", 1.5, "--json", "--n-best", 1
    )
    assert result.exit_code == 1
    assert [entry["speaker"] for entry in candidates(result)] == [None, None]
    assert [len(entry["candidates"]) for entry in candidates(result)] == [1, 1]


def test_table(model, enrolled, speech):
    result = run("identify", "-m", model, enrolled, speech / "ada" / "0.wav", "--threshold", 0.0)
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{speech / 'ada' / '0.wav'}: ada (threshold 0.0000, margin ")
    assert [line.split()[0] for line in lines[1:]] == ["ada", "bela"]
    result = run("identify", "-m", model, enrolled, speech / "ada" / "0.wav", "--threshold", 2)
    assert ": unknown (threshold 2.0000, " in result.stdout and result.exit_code == 1


def test_the_threshold_shipped_with_the_model(tmp_path, speech, store):
    rng = np.random.default_rng(0)
    calibration = Calibration.fit(rng.normal(0.7, 0.1, 200), rng.normal(0.1, 0.1, 200))
    model = write_hub_folder(tmp_path / "calibrated", calibration)
    assert run("enroll", "-m", model, store, "ada", speech / "ada").exit_code == 0
    (found,) = candidates(run("identify", "-m", model, store, speech / "ada" / "0.wav", "--json"))
    assert found["threshold"] == pytest.approx(calibration.threshold, abs=1e-6)


def test_without_any_threshold(model, enrolled, speech):
    result = run("identify", "-m", model, enrolled, speech / "ada")
    assert result.exit_code == 2 and "--threshold" in result.stderr


def test_silence_is_nobody(model, enrolled, speech):
    result = run("identify", "-m", model, enrolled, speech / "silence.wav", "--threshold", -1, "--json")
    assert result.exit_code == 1 and candidates(result)[0]["speaker"] is None
    assert "silence.wav: no speech in its 1 s" in result.stderr
    before = enrolled.read_bytes()
    result = run("enroll", "-m", model, enrolled, "nobody", speech / "ada", speech / "silence.wav")
    assert result.exit_code == 2 and result.stderr == (
        f"error: {speech / 'silence.wav'}: no speech in its 1 s: nothing is enrolled\n"
    )
    assert enrolled.read_bytes() == before


def test_list_update_and_delete(model, enrolled, speech):
    listed = json.loads(run("enroll", "--list", enrolled, "--json").stdout)
    assert [(entry["name"], entry["utterances"]) for entry in listed] == [("ada", 2), ("bela", 2)]
    assert listed[0]["seconds"] == pytest.approx(1.7)
    result = run("enroll", "-m", model, enrolled, "ada", speech / "ada", speech / "carl" / "0.wav", "--json")
    told = json.loads(result.stdout)
    assert told.pop("seconds") == pytest.approx(2.5)
    assert told == {"name": "ada", "files": 3, "added": 1, "percent": 25}
    result = run("enroll", "-m", model, enrolled, "ada", speech / "ada" / "0.wav", "--replace")
    assert result.stdout == "enrolled ada: 1 utterance, 0.8 s of speech; 8 % of the speech that a voiceprint needs\n"
    result = run("enroll", "-m", model, enrolled, "ada", speech / "ada" / "0.wav")
    assert result.stdout == (
        "enrolled ada: 0 utterances, 0.8 s of speech; 1 was enrolled already; 8 % of the speech that a voiceprint "
        "needs\n"
    )
    assert run("enroll", "--delete", "bela", enrolled).stdout == "deleted bela (2 utterances)\n"
    table = run("enroll", "--list", enrolled).stdout.splitlines()
    assert len(table) == 2 and table[1].split()[:3] == ["ada", "1", "0.8"]
    assert json.loads(run("enroll", "--delete", "ada", enrolled, "--json").stdout)["utterances"] == 1
    assert run("enroll", "--list", enrolled).stdout == "nobody is enrolled\n"
    result = run("identify", "-m", model, enrolled, speech / "ada" / "0.wav", "--threshold", 0)
    assert result.exit_code == 1 and "nobody is enrolled" in result.stdout


def test_another_model_is_refused_and_both_are_named(model, enrolled, speech, tmp_path):
    other = write_hub_folder(tmp_path / "other")
    text = (other / "hyperparams.yaml").read_text()
    (other / "hyperparams.yaml").write_text(text.replace("std_norm: False", "std_norm: True"))
    prints = [
        fingerprint(SpeakerVerification.from_hparams(source, run_opts={"device": "cpu"}))
        for source in (model, other)
    ]
    before = enrolled.read_bytes()
    for command in (
        ["enroll", "-m", other, enrolled, "carl", speech / "carl"],
        ["identify", "-m", other, enrolled, speech / "carl", "--threshold", 0],
    ):
        result = run(*command)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
        for named in (*prints, str(model), str(other), str(enrolled)):
            assert named in result.stderr
    assert enrolled.read_bytes() == before


def test_files_that_cannot_be_used(model, enrolled, speech):
    before = enrolled.read_bytes()
    result = run("enroll", "-m", model, enrolled, "carl", speech / "carl" / "0.wav", speech / "text.wav")
    assert result.exit_code == 2 and "text.wav" in result.stderr and len(result.stderr.splitlines()) == 1
    assert enrolled.read_bytes() == before
    result = run(
        "identify",
        "-m",
        model,
        enrolled,
        speech / "text.wav",
        speech / "ada" / "0.wav",
        "--threshold",
        0,
        "--json",
    )
    assert result.exit_code == 2 and "text.wav" in result.stderr
    assert [entry["speaker"] for entry in candidates(result)] == ["ada"]


def test_a_list_on_standard_input(model, store, speech):
    lines = "\n".join(map(str, sorted((speech / "ada").iterdir())))
    assert run("enroll", "-m", model, store, "ada", "-", stdin=lines).stdout.startswith(
        "enrolled ada: 2 utterances"
    )


@pytest.mark.parametrize("content", [b"no store", b"SQLite format 3\0" + b"\xa5" * 200])
def test_a_foreign_store_is_left_as_it_is(model, store, speech, content):
    store.write_bytes(content)
    for command in (
        ["enroll", "-m", model, store, "ada", speech / "ada"],
        ["identify", "-m", model, store, speech / "ada", "--threshold", 0],
        ["enroll", "--list", store],
        ["enroll", "--delete", "ada", store],
    ):
        result = run(*command)
        assert result.exit_code == 2 and result.stderr.startswith(f"error: {store}: ")
        assert len(result.stderr.splitlines()) == 1 and store.read_bytes() == content


@pytest.mark.parametrize(
    "command",
    [
        ["enroll"],
        ["enroll", "-m", "MODEL", "STORE", "ada"],
        ["enroll", "STORE", "ada"],
        ["identify", "STORE", "SPEECH"],  # enrolled with another model than the default one
        ["enroll", "--list"],
        ["enroll", "--list", "STORE", "more"],
        ["enroll", "--list", "--delete", "ada", "STORE"],
        ["enroll", "--list", "--replace", "STORE"],
        ["enroll", "--list", "STORE"],
        ["enroll", "--delete", "ada", "STORE"],
        ["enroll", "-m", "MODEL", "STORE", " ", "SPEECH"],
        ["enroll", "-m", "MODEL", "STORE", "ada", "gone.wav"],
        ["enroll", "-m", "gone", "STORE", "ada", "SPEECH"],
        ["enroll", "-m", "MODEL", "gone/STORE", "ada", "SPEECH"],
        ["identify", "-m", "MODEL"],
        ["identify", "-m", "MODEL", "STORE"],
        ["identify", "-m", "MODEL", "STORE", "SPEECH", "--threshold", "0"],
        ["identify", "-m", "MODEL", "STORE", "SPEECH", "--threshold", "nan"],
        ["identify", "-m", "MODEL", "STORE", "SPEECH", "--n-best", "0"],
    ],
)
def test_misuse_ends_with_2(model, store, speech, command):
    places = {
        "MODEL": model,
        "STORE": store,
        "SPEECH": speech / "ada",
        "gone/STORE": store.parent / "gone" / "x",
    }
    result = run(*(places.get(argument, argument) for argument in command))
    assert result.exit_code == 2 and "error" in result.stderr.lower()
    assert not store.exists()
