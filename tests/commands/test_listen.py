"""`bccmt listen` and `bccmt enroll --interactive`: a microphone that is none, and recordings played as one."""

import json
import sys
import time
import types

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.inference import SpeakerVerification
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.sequential import SequentialTest
from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import voice

RATE = 16000


@pytest.fixture(autouse=True)
def spectra(monkeypatch):
    """Embed by the spectrum, which tells the voices of the tests apart."""

    def embed_waveform(self, wav):
        power = np.log(
            np.abs(np.fft.rfft(wav.reshape(-1)[: len(wav) // 512 * 512].reshape(-1, 512))).mean(axis=0) + 1e-9
        )
        bands = power[1:].reshape(16, 16).mean(axis=1)
        return (bands - bands.mean()).astype(np.float32)

    monkeypatch.setattr(SpeakerVerification, "embed_waveform", embed_waveform)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write a model with thresholds for the voices of the tests."""
    folder = write_hub_folder(tmp_path_factory.mktemp("hub") / "hub", Calibration(100.0, -85.0))
    SequentialTest((0.1, 0.01), (1.0, 3.0), (-1.0, -3.0)).save(folder / "sequential.json")
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for name, seed in (("ada", 1), ("bela", 2)):
        for take, part in enumerate((slice(0, 2), slice(2, 8))):
            soundfile.write(folder / f"{name} {take}.wav", spoken(seed, part.start, part.stop), RATE)
    soundfile.write(folder / "silence.wav", np.zeros(3 * RATE), RATE)
    return folder


def spoken(seed, start, stop):
    """Return a stretch of what somebody says: of another length, `voice` is another voice."""
    return voice(20, seed)[start * RATE : stop * RATE]


def run(*arguments, stdin=None):
    result = CliRunner().invoke(cli.main, [*map(str, arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def store(model, speech, tmp_path):
    path = tmp_path / "voices.db"
    assert run("enroll", "-m", model, path, "ada", speech / "ada 0.wav").exit_code == 0
    return path


@pytest.fixture
def microphone(monkeypatch):
    """Stand in for the package sounddevice: what `hears` holds comes in blocks, and then silence."""
    module = types.SimpleNamespace(hears=np.zeros(0), asked=[], fails=None)

    class PortAudioError(Exception):
        pass

    class InputStream:
        def __init__(self, **options):
            module.asked.append(options)
            self.options = options

        def __enter__(self):
            if module.fails:
                raise PortAudioError(module.fails)
            size = self.options["blocksize"]
            wav = np.concatenate([module.hears, np.zeros(100 * size)])
            for start in range(0, len(wav) - size, size):
                block = (wav[start : start + size, None] * 32767).astype(self.options["dtype"])
                self.options["callback"](block, size, None, None)

        def __exit__(self, *error):
            module.hears = module.hears[100000:]

    def query_devices(device, kind):
        if device == "none":
            raise ValueError("No input device matching 'none'")
        return {"default_samplerate": 16000.0}

    module.PortAudioError, module.InputStream, module.query_devices = (
        PortAudioError,
        InputStream,
        query_devices,
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_a_recording_played_as_if_spoken(model, store, speech):
    result = run("listen", "-m", model, store, "ada", "--file", speech / "ada 1.wav", "--fast")
    assert result.exit_code == 0 and result.stdout.startswith("it is ada, after 1."), result.output
    result = run("listen", "-m", model, store, "ada", "--file", speech / "bela 1.wav", "--fast")
    assert result.exit_code == 1 and result.stdout.startswith("it is not ada, after ")
    result = run("listen", "-m", model, store, "ada", "--file", speech / "silence.wav", "--fast")
    assert result.exit_code == 1 and result.stdout.startswith("undecided (0.0 s of speech in 3.0 s)")
    assert result.stderr == "warning: no speech in its 3 s\n"


def test_lines_of_json(model, store, speech):
    result = run(
        "listen", "-m", model, store, "ada", "--file", speech / "ada 1.wav", "--fast", "--json", "--on"
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and len(lines) > 4 and lines[-1]["decision"] == "same"
    assert lines[-1]["seconds"] == 6 and lines[-1]["speech_seconds"] == 6
    verified = run("verify", "-m", model, speech / "ada 0.wav", speech / "ada 1.wav", "--json")
    assert lines[-1]["score"] == pytest.approx(json.loads(verified.stdout)["score"], abs=1e-5)
    assert [line["speech_seconds"] for line in lines] == sorted(line["speech_seconds"] for line in lines)


def test_time_passes_as_it_does(model, store, speech):
    started = time.monotonic()
    run("listen", "-m", model, store, "ada", "--file", speech / "silence.wav", "--seconds", 0.8)
    assert time.monotonic() - started > 0.8


def test_the_microphone(model, store, microphone):
    microphone.hears = spoken(1, 9, 15)
    result = run("listen", "-m", model, store, "ada")
    assert result.exit_code == 0 and result.stdout.startswith("it is ada")
    assert microphone.asked[0]["samplerate"] == 16000 and microphone.asked[0]["device"] is None
    microphone.hears = spoken(2, 9, 15)
    result = run("listen", "-m", model, store, "ada", "--microphone", "3", "--seconds", 4)
    assert result.exit_code == 1 and microphone.asked[1]["device"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ada", "--fast"], "--fast is for --file"),
        (["ada", "--file", "a.wav", "--microphone", "1"], "either --file or --microphone"),
        (["carl", "--file", "a.wav"], "no speaker 'carl' is enrolled"),
        (["ada", "--file", "gone.wav"], "gone.wav: there is no such file"),
        (["ada", "--file", "gone.wav", "--error", "0"], "error rate of 0"),
        (["ada", "--seconds", "-1"], "--seconds"),
        (["ada", "--microphone", "none"], "there is no microphone none"),
    ],
)
def test_misuse_of_listen(model, store, speech, microphone, arguments, message):
    arguments = [
        speech / "ada 1.wav" if one == "gone.wav" and "--error" in arguments else one for one in arguments
    ]
    result = run("listen", "-m", model, store, *arguments)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_without_sounddevice(model, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run("listen", "-m", model, store, "ada")
    assert result.exit_code == 2 and "pip install 'speechbrain_bccmt[live]'" in result.stderr
    result = run("enroll", "-m", model, store, "ada", "--interactive")
    assert result.exit_code == 2 and "pip install" in result.stderr


def test_a_microphone_that_fails(model, store, microphone):
    microphone.fails = "Device unavailable"
    result = run("listen", "-m", model, store, "ada")
    assert result.exit_code == 2 and "the microphone cannot be used: Device unavailable" in result.stderr


def test_enrolment_asks_until_there_is_enough(model, store, microphone):
    microphone.hears = np.concatenate(
        [
            part
            for seed, start in ((3, 0), (4, 0), (3, 5))
            for part in (spoken(seed, start, start + 5), np.zeros(20000))
        ]
    )
    result = run(
        "enroll", "-m", model, store, "carl", "--interactive", "--label", "headset", stdin="\n\n\n\n\n"
    )
    told = [line for line in result.stderr.splitlines() if "taken" in line]
    assert result.exit_code == 0, result.output
    assert told[0] == "taken, 5.0 s of speech" and told[2] == "taken, 5.0 s of speech"
    assert told[1].startswith("not taken, 5.0 s of speech; another voice than before")
    assert "100 % of the speech that a voiceprint needs" in result.stdout
    rows = [(one.label, one.file) for one in Voiceprints(store).utterances()]
    assert rows[-2:] == [("headset", "microphone")] * 2


def test_enrolment_may_stop(model, store, microphone):
    microphone.hears = spoken(3, 0, 5)
    result = run("enroll", "-m", model, store, "carl", "--interactive", stdin="\nq\n")
    assert result.exit_code == 0 and "; 50 % of the speech" in result.stdout
    microphone.hears = np.zeros(0)
    result = run("enroll", "-m", model, store, "dora", "--interactive", stdin="\nq\n")
    assert result.exit_code == 2 and "no speech" in result.stderr and "nothing was recorded" in result.stderr
    assert [one.name for one in Voiceprints(store).speakers()] == ["ada", "carl"]


def test_a_print_is_extended_by_its_own_voice(model, store, speech):
    before = store.read_bytes()
    result = run("enroll", "-m", model, store, "ada", speech / "bela 0.wav")
    assert result.exit_code == 2 and store.read_bytes() == before
    assert "another voice than before: nothing is enrolled (--force enrols it nevertheless)" in result.stderr
    result = run("enroll", "-m", model, store, "ada", speech / "ada 1.wav", "--json")
    assert json.loads(result.stdout)["percent"] == 80
    result = run("enroll", "-m", model, store, "ada", speech / "bela 0.wav", "--force")
    assert result.exit_code == 0 and "100 % of the speech" in result.stdout
    # Within one call as well; but not against what is replaced.
    result = run("enroll", "-m", model, store, "eva", speech / "ada 0.wav", speech / "bela 0.wav")
    assert result.exit_code == 2 and "bela 0.wav: another voice than before" in result.stderr
    assert run("enroll", "-m", model, store, "ada", speech / "bela 0.wav", "--replace").exit_code == 0


def test_misuse_of_interactive(model, store, speech):
    result = run("enroll", "-m", model, store, "ada", speech / "ada 0.wav", "--interactive")
    assert result.exit_code == 2 and "without files" in result.stderr
    assert run("enroll", "--list", store, "--interactive").exit_code == 2
