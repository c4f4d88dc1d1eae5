"""Recordings and models of every kind at the command line: a right answer, or one line that names the file.

The cases are generated; each ends with exit code 0 (or 1: different speaker) and the right answer, or with exit code
2 and one line on standard error. Nothing may raise, hang, or write beside the two streams.
"""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt import cli
from speechbrain_bccmt.commands import inputs
from speechbrain_bccmt.inference.architecture import NEEDED
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.damaged_folders import DAMAGES, damage
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import CALIBRATION, voice

SECONDS = 0.6
LIMIT = 20  # seconds; a case takes a few hundredths


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "hub", CALIBRATION)


@pytest.fixture(scope="module")
def model(hub_folder):
    return SpeakerVerification.from_hparams(hub_folder, run_opts={"device": "cpu"})


@pytest.fixture(autouse=True)
def no_hang():
    def stop(*_):
        raise TimeoutError(f"no answer within {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(model, monkeypatch, capfd):
    """Return a function that runs `bccmt` in this process, on a model that is loaded once."""
    monkeypatch.setattr(inputs, "load_model", lambda *_: model)

    def run_command(*arguments, stdin=None):
        capfd.readouterr()
        result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        assert capfd.readouterr() == ("", "")  # C decoders bypass Python's streams
        return result

    return run_command


def assert_refused(result, path):
    """Check for exit code 2 and one line that names the file."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert os.path.basename(path) in result.stderr
    assert len(result.stderr) < 600


def answer(result):
    """Return the one line of JSON that `bccmt embed` prints."""
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    entry = json.loads(line)
    assert np.isfinite(entry["embedding"]).all() and np.any(entry["embedding"])
    return entry


def speech(rate=16000, channels=1, seconds=SECONDS):
    """Make a sound below 3.3 kHz that is the same at any rate, in every channel."""
    time = np.arange(round(seconds * rate)) / rate
    wav = sum(np.sin(2 * np.pi * hertz * time + hertz) for hertz in range(60, 3300, 41)) / 300
    wav *= 1 + 0.5 * np.sin(2 * np.pi * 4 * time)
    return np.repeat(wav[:, None], channels, axis=1)


def cosine(a, b):
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


# Kinds of files that libsndfile writes: name: ending, format, encoding, highest rate, most channels.
KINDS = {
    "wav8": (".wav", "WAV", "PCM_U8", 192000, 8),
    "wav16": (".wav", "WAV", "PCM_16", 192000, 8),
    "wav24": (".wav", "WAV", "PCM_24", 192000, 8),
    "wav32": (".wav", "WAV", "PCM_32", 192000, 8),
    "float32": (".wav", "WAV", "FLOAT", 192000, 8),
    "float64": (".wav", "WAV", "DOUBLE", 192000, 8),
    "ulaw": (".wav", "WAV", "ULAW", 192000, 8),
    "wavex": (".wav", "WAVEX", "PCM_16", 192000, 8),
    "rf64": (".wav", "RF64", "PCM_16", 192000, 8),
    "flac16": (".flac", "FLAC", "PCM_16", 192000, 8),
    "flac24": (".flac", "FLAC", "PCM_24", 192000, 8),
    "vorbis": (".ogg", "OGG", "VORBIS", 96000, 8),
    "opus": (".opus", "OGG", "OPUS", 48000, 8),
    "mp3": (".mp3", "MP3", "MPEG_LAYER_III", 48000, 2),
    "aiff": (".aiff", "AIFF", "PCM_16", 192000, 8),
    "au": (".au", "AU", "PCM_16", 192000, 8),
    "caf": (".caf", "CAF", "PCM_16", 192000, 8),
}
RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000]
OPUS_RATES = [8000, 12000, 16000, 24000, 48000]
# Each kind at each rate in one or two channels, and each kind in each number of channels at 16 kHz.
GOOD = [
    (kind, rate, 1 + index % 2)
    for kind, (_, _, encoding, highest, _) in KINDS.items()
    for index, rate in enumerate(OPUS_RATES if encoding == "OPUS" else RATES)
    if rate <= highest
]
GOOD += [(kind, 16000, n) for kind, (*_, most) in KINDS.items() for n in range(1, most + 1) if n > 2]


def write(folder, kind, wav, rate=16000, name="recording"):
    ending, container, encoding, _, _ = KINDS[kind]
    path = folder / (name + ending)
    soundfile.write(path, wav, rate, format=container, subtype=encoding)
    return path


@pytest.fixture(scope="module")
def reference(model):
    return model.embed(speech()[:, 0]).numpy()


@pytest.mark.parametrize(("kind", "rate", "channels"), GOOD)
def test_what_can_be_read_is_read_rightly(run, tmp_path, reference, kind, rate, channels):
    path = write(tmp_path, kind, speech(rate, channels), rate)
    entry = answer(run("embed", "-m", "model", path))
    # Lossy codecs pad by a frame.
    assert entry["seconds"] == pytest.approx(SECONDS, abs=0.15 if kind == "mp3" else 0.01)
    lossy = kind in ("vorbis", "opus", "mp3", "wav8", "ulaw")
    assert cosine(entry["embedding"], reference) > (0.97 if lossy else 0.99)
    # Its highest tone is at 3.3 kHz.
    assert all("narrow band (telephone)" in text for text in entry["warnings"])


CONTENTS = {
    "silence": lambda rng: np.zeros(9600),
    "near silence": lambda rng: rng.normal(0, 1e-4, 9600),
    "offset": lambda rng: np.full(9600, 0.5),
    "square": lambda rng: np.sign(np.sin(np.arange(9600) / 20)),
    "flat tops": lambda rng: (3 * voice(0.6)).clip(-0.2, 0.2),
    "impulse": lambda rng: np.eye(1, 9600, 4800)[0],
    "white noise": lambda rng: rng.normal(0, 0.1, 9600),
    "half silence": lambda rng: np.concatenate([np.zeros(4800), rng.normal(0, 0.1, 4800)]),
    "1 sample": lambda rng: np.full(1, 0.5),
    "2 samples": lambda rng: np.full(2, 0.5),
    "10 ms": lambda rng: rng.normal(0, 0.1, 160),
    "no sample": lambda rng: np.zeros(0),
    "NaN": lambda rng: np.where(np.arange(9600) == 77, np.nan, 0.1),
    "all NaN": lambda rng: np.full(9600, np.nan),
    "infinity": lambda rng: np.where(np.arange(9600) == 77, -np.inf, 0.1),
    "beyond float32": lambda rng: np.full(9600, 1e300),
    "loud float": lambda rng: rng.normal(0, 3000, 9600),
}
STEADY = ("silence", "near silence", "offset", "square", "white noise", "loud float")
ONLY_FLOAT = ("NaN", "all NaN", "infinity", "beyond float32", "loud float")
REFUSED = ("1 sample", "2 samples", "10 ms", "no sample", "NaN", "all NaN", "infinity", "beyond float32")
SOUNDS = [
    (content, kind)
    for content in CONTENTS
    for kind in (
        ("float32", "float64")
        if content in ONLY_FLOAT
        else ("wav8", "wav16", "flac16", "vorbis", "opus", "mp3")
    )
    if (content, kind) != ("beyond float32", "float32")
]


@pytest.mark.parametrize(("content", "kind"), SOUNDS)
def test_sounds_that_are_no_speech(run, tmp_path, content, kind):
    with np.errstate(over="ignore"):
        path = write(tmp_path, kind, CONTENTS[content](np.random.default_rng(0)))
    result = run("embed", "-m", "model", path)
    padded = kind in ("mp3", "opus", "vorbis")  # their frames add samples
    if content in REFUSED and not (padded and result.exit_code == 0):
        assert_refused(result, path)
        return
    entry = answer(result)
    told = " ".join(entry["warnings"])
    if not padded and not (content, kind) == (
        "near silence",
        "wav8",
    ):  # rounded to zero in 8 bits
        assert ("no speech" in told) == (content in STEADY)
    if content == "flat tops" and not padded:  # a lossy codec rounds the tops
        assert "clipped" in told
    elif content != "flat tops":
        assert "clipped" not in told


def cut(share):
    return lambda content: content[: max(1, int(share * len(content)))]


def flip(content):
    rng = np.random.default_rng(0)
    data = np.frombuffer(content, dtype=np.uint8).copy()
    data[rng.integers(0, len(data), max(1, len(data) // 50))] ^= 0xFF
    return data.tobytes()


INJURIES = {
    "no bytes": lambda content: b"",
    "1 byte": lambda content: content[:1],
    "half a header": lambda content: content[:20],
    "cut at 2 %": cut(0.02),
    "cut at 30 %": cut(0.3),
    "cut at 90 %": cut(0.9),
    "last byte missing": lambda content: content[:-1],
    "header zeroed": lambda content: bytes(64) + content[64:],
    "header only": lambda content: content[:44],
    "body zeroed": lambda content: content[:100] + bytes(len(content) - 100),
    "flipped bytes": flip,
    "random bytes": lambda content: np.random.default_rng(1).bytes(len(content)),
    "text": lambda content: ("Dear listener, this is no sound.\n" * 50).encode(),
    "zero bytes": lambda content: bytes(5000),
    "junk behind": lambda content: content + b"junk" * 100,
    "twice": lambda content: content + content,
}
HURT = [
    (injury, kind) for injury in INJURIES for kind in ("wav16", "float32", "flac16", "vorbis", "opus", "mp3")
]
NEVER_AUDIO = ("no bytes", "1 byte", "half a header", "random bytes", "text", "zero bytes", "header zeroed")


@pytest.mark.parametrize(("injury", "kind"), HURT)
def test_injured_files(run, tmp_path, injury, kind):
    path = write(tmp_path, kind, speech(seconds=1.0))
    content = path.read_bytes()
    path.write_bytes(INJURIES[injury](content))
    result = run("embed", "-m", "model", path)
    if result.exit_code == 0:
        assert injury not in NEVER_AUDIO or (
            kind == "mp3" and injury == "header zeroed"
        )  # it has no file header
        entry = answer(result)
        assert 0.1 <= entry["seconds"] <= 2.3
        if "cut" in injury or "missing" in injury:
            # Nothing in an mp3 gives its length: the rest is a valid recording.
            assert kind == "mp3" or (injury, kind) == ("last byte missing", "vorbis"), entry["seconds"]
            assert entry["seconds"] <= 1.1
    else:
        assert_refused(result, path)
        assert injury != "junk behind" or kind in ("vorbis", "opus")


@pytest.mark.parametrize("kind", ["wav16", "flac16", "vorbis", "mp3"])
@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3", ".txt", ".raw", ""])
def test_endings_that_lie(run, tmp_path, reference, kind, ending):
    path = tmp_path / f"recording{ending}"
    write(tmp_path, kind, speech(), name="right").rename(path)
    result = run("embed", "-m", "model", path)
    if result.exit_code == 0:
        assert cosine(answer(result)["embedding"], reference) > 0.97
    else:
        assert ending == ".raw"
        assert_refused(result, path)


NAMES = [
    "with space",
    "ünï-cödé",
    "声紋",
    "emoji 🎤",
    "quote'\"",
    "per%cent",
    "dollar$HOME",
    "semi;colon",
    "back\\slash",
]
NAMES += [
    "star*",
    "brackets[1]",
    "question?",
    "new\nline",
    "tab\there",
    " leading",
    "trailing ",
    "-dash",
    "#hash",
    "a" * 200,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files(run, tmp_path, name, monkeypatch):
    path = write(tmp_path, "wav16", speech(), name=name)
    entry = answer(run("embed", "-m", "model", "--", path))
    assert entry["id"] == str(path)
    monkeypatch.chdir(tmp_path)
    assert answer(run("embed", "-m", "model", "--", path.name))["embedding"] == entry["embedding"]
    path.write_text("no audio")
    result = run("embed", "-m", "model", "--", path)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1


def make_place(folder, what):
    path = folder / "recording.wav"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "broken link":
        path.symlink_to(folder / "gone")
    elif what == "link to itself":
        path.symlink_to(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "missing":
        pass
    elif what == "folder missing":
        return folder / "no" / "recording.wav"
    elif what == "below a file":
        path.write_bytes(b"")
        return path / "recording.wav"
    elif what == "too long":
        return folder / ("recording.wav" + "x" * 300)
    elif what == "no permission":
        if os.geteuid() == 0:
            pytest.skip("root may read every file")
        write(folder, "wav16", speech())
        path.chmod(0)
    return path


PLACES = [
    "folder",
    "pipe",
    "broken link",
    "link to itself",
    "device",
    "missing",
    "folder missing",
    "below a file",
]
PLACES += ["too long", "no permission"]


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("command", ["embed", "enrolment", "test"])
def test_places_without_a_recording(run, tmp_path, what, command):
    path = make_place(tmp_path, what)
    good = write(tmp_path, "wav16", speech(), name="good")
    arguments = {"embed": [path], "enrolment": [path, good], "test": [good, path]}[command]
    result = run("embed" if command == "embed" else "verify", "-m", "model", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert "recording.wav" in result.stderr


@pytest.mark.parametrize("rate", [1, 999, 44101, 47999, 767999, 768001, 2**31 - 1])
@pytest.mark.parametrize("kind", ["wav16", "au"])
def test_odd_sample_rates(run, tmp_path, rate, kind):
    """Rates as in a damaged header; some need a filter of a million taps."""
    path = write(tmp_path, kind, voice(1.0)[:, None], rate)
    result = run("embed", "-m", "model", path)
    if 1000 <= rate <= 160000:
        assert answer(result)["seconds"] == pytest.approx(16000 / rate, abs=1e-3)
    else:
        assert_refused(result, path)


@pytest.mark.parametrize("injury", ["cut at 30 %", "text", "no bytes"])
@pytest.mark.parametrize("side", ["first", "second", "both", "one of several"])
def test_verification_of_injured_files(run, tmp_path, injury, side):
    good = write(tmp_path, "wav16", speech(), name="good")
    bad = write(tmp_path, "wav16", speech(), name="bad")
    bad.write_bytes(INJURIES[injury](bad.read_bytes()))
    if side == "one of several":
        result = run("verify", "-m", "model", "--enrol", good, "--enrol", bad, good)
    else:
        result = run(
            "verify", "-m", "model", *{"first": (bad, good), "second": (good, bad), "both": (bad, bad)}[side]
        )
    assert_refused(result, bad)


@pytest.mark.parametrize("content", ["silence", "offset"])
@pytest.mark.parametrize("other", ["silence", "offset", "white noise"])
def test_silence_is_never_the_same_speaker(run, tmp_path, content, other):
    paths = [
        write(tmp_path, "wav16", CONTENTS[name](np.random.default_rng(0)), name=f"{index}")
        for index, name in enumerate((content, other))
    ]
    result = run("verify", "-m", "model", *paths, "--threshold", "-1", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["decision"] == "different"
    assert "warning: " in result.stderr and "no speech" in result.stderr


OTHER_DAMAGES = ["code in the checkpoint", "code in the YAML", "code in config.json", "no folder", "a file"]
BAD_MODELS = [(what, "embed") for what in [*DAMAGES, *OTHER_DAMAGES]]
BAD_MODELS += [
    (what, command) for what in ["truncated checkpoint", *OTHER_DAMAGES] for command in ("verify", "info")
]


@pytest.mark.parametrize(("what", "command"), BAD_MODELS)
def test_damaged_models(tmp_path, capfd, what, command):
    folder, marker = write_hub_folder(tmp_path / "hub"), tmp_path / "marker"
    path = write(tmp_path, "wav16", speech())
    if what == "code in the checkpoint":
        (folder / "embedding_model.ckpt").write_bytes(b"cos\nmkdir\n(S'" + str(marker).encode() + b"'\ntR.")
    elif what == "code in the YAML":
        yaml = folder / "hyperparams.yaml"
        yaml.write_text(
            yaml.read_text().replace("!new:speechbrain_bccmt.BCCMT", f"!apply:os.mkdir [{marker}]\nb:")
        )
    elif what == "code in config.json":
        hostile = {"class": "os.mkdir", "options": [str(marker)]}
        (folder / "config.json").write_text(json.dumps({"modules": dict.fromkeys(NEEDED, hostile)}))
    elif what == "no folder":
        folder = tmp_path / "gone"
    elif what == "a file":
        folder = path
    else:
        damage(folder, what)
    arguments = {"embed": [path], "verify": [path, path], "info": []}[command]
    capfd.readouterr()
    result = CliRunner().invoke(cli.main, [command, "-m", str(folder), *map(str, arguments)])
    assert result.exit_code == 2, result.exception
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == "" and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not marker.exists()


def test_there_are_enough_cases():
    rest = len(NAMES) + 3 * len(PLACES) + 28 + 14 + 12 + 6
    assert len(GOOD) + len(SOUNDS) + len(HURT) + len(BAD_MODELS) + rest >= 300


def test_nothing_is_left_behind(run, tmp_path):
    """From a list of mostly unusable files, the usable ones are written in full."""
    good = write(tmp_path, "wav16", speech(), name="good")
    paths = [good]
    for index, injury in enumerate(NEVER_AUDIO):
        path = write(tmp_path, "flac16", speech(), name=f"bad {index}")
        path.write_bytes(INJURIES[injury](path.read_bytes()))
        paths.append(path)
    result = run("embed", "-m", "model", "-", "-o", tmp_path / "out.npz", stdin="\n".join(map(str, paths)))
    assert result.exit_code == 2 and result.stderr.count("error: ") == len(NEVER_AUDIO)
    with np.load(tmp_path / "out.npz") as stored:
        assert stored["ids"].tolist() == [str(good)] and stored["embeddings"].shape == (1, 16)
    assert {path.name for path in Path(tmp_path).iterdir()} == {path.name for path in paths} | {"out.npz"}
