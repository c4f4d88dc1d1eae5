"""The wheel bccmt-runtime, in an environment with nothing but its requirements."""

import importlib.metadata
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement

from speechbrain_bccmt.inference.loading import load_verifier
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import voice

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("detector")


def link_distribution(name, folder, done):
    """Link an installed distribution, and everything it requires, into a folder."""
    if name in done:
        return
    done.add(name)
    distribution = importlib.metadata.distribution(name)
    for top in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
        (folder / top).symlink_to(distribution.locate_file(top))
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            link_distribution(requirement.name, folder, done)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel as for publication, from a copy of the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        ROOT / "speechbrain_bccmt", source / "speechbrain_bccmt", ignore=shutil.ignore_patterns("page*")
    )
    shutil.copytree(
        ROOT / "runtime", source / "runtime", ignore=shutil.ignore_patterns("build", "*.egg-info")
    )
    (source / "docs").mkdir()
    for name in ("setup.py", "docs/runtime.md"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", out, source / "runtime"], check=True, capture_output=True)
    (path,) = out.glob("bccmt_runtime-*.whl")
    return path


@pytest.fixture(scope="module")
def bccmt(wheel, tmp_path_factory):
    """Return a function that runs the command of the wheel, in an environment of its own."""
    environment = tmp_path_factory.mktemp("environment")
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BCCMT"))}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = next(
        environment / name for name in ("bin/python", "Scripts/python.exe") if (environment / name).exists()
    )
    command = [
        sys.executable,
        "-m",
        "pip",
        "-q",
        "--disable-pip-version-check",
        "--python",
        python,
        "install",
    ]
    subprocess.run([*command, "--no-deps", "--no-index", wheel], check=True, capture_output=True, env=outside)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    done = set()
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(
            next(name for name in archive.namelist() if name.endswith("METADATA"))
        ).decode()
    for line in metadata.splitlines():
        requirement = Requirement(line.partition(": ")[2]) if line.startswith("Requires-Dist: ") else None
        if requirement and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            link_distribution(requirement.name, packages, done)

    def run(*arguments, code=None, stdin=None):
        if code is None:
            command = [python.parent / "bccmt", *arguments]
        else:
            command = [python, "-c", code, *arguments]
        options = {"capture_output": True, "text": True, "env": outside, "cwd": environment, "input": stdin}
        return subprocess.run(list(map(str, command)), **options)

    return run


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two recordings each of two speakers: real speech if available, otherwise audible noise."""
    speech = Path(os.environ.get("SPEECH_DATA", ROOT.parent / "shared" / "speech")) / "speechocean762" / "wav"
    if speech.is_dir():
        folders = [folder for folder in sorted(speech.iterdir()) if len(list(folder.rglob("*.*"))) > 1]
        return [str(path) for folder in (folders[3], folders[40]) for path in sorted(folder.rglob("*.*"))[:2]]
    folder, paths = tmp_path_factory.mktemp("recordings"), []
    for number in range(4):
        paths.append(str(folder / f"{number}.wav"))
        soundfile.write(paths[-1], voice(2.0, number // 2), 16000)
    return paths


@pytest.fixture(scope="module")
def expected(recordings):
    """Embed the recordings with PyTorch."""
    model = load_verifier(engine="torch")
    return model, [model.embed_file(path) for path in recordings]


def test_nothing_else_is_there(bccmt):
    """None of the modules that every other test may use is importable."""
    found = bccmt(
        code="import speechbrain_bccmt.cli, sys; print(speechbrain_bccmt.cli.__file__, sys.path)"
    ).stdout
    assert str(ROOT) not in found and not any(path in found for path in site.getsitepackages())
    for name in ("torch", "torchaudio", "speechbrain", "scipy", "sklearn", "matplotlib", "silero_vad", "av"):
        assert f"No module named '{name}'" in bccmt(code=f"import {name}").stderr
    commands = [
        line.split()[0] for line in bccmt("--help").stdout.partition("Commands:")[2].strip().splitlines()
    ]
    assert {"verify", "enroll", "identify", "listen", "embed", "models"} <= set(commands)
    assert not {"evaluate", "attention", "calibrate", "export", "info"} & set(commands)
    for command in commands:
        assert bccmt(command, "--help").returncode == 0
    assert "of bccmt-runtime" in bccmt("--version").stdout
    assert bccmt("models").stdout.startswith("tiny (default): 271.44 K parameters")


def test_embeddings_are_those_of_pytorch(bccmt, recordings, expected, tmp_path):
    done = bccmt("embed", *recordings, "-o", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    for vector, seconds, utterance in zip(
        found["embeddings"], found["speech_seconds"], expected[1], strict=True
    ):
        other = utterance.embedding
        assert vector @ other / np.linalg.norm(vector) / np.linalg.norm(other) > 0.99999
        assert seconds == utterance.speech_seconds


def test_decisions_are_those_of_pytorch(bccmt, recordings, expected):
    model, utterances = expected
    for one, other in ((0, 1), (0, 2)):
        done = bccmt("verify", recordings[one], recordings[other], "--json")
        told, verdict = (
            json.loads(done.stdout),
            model.verify_utterances([utterances[one]], [utterances[other]]),
        )
        assert told["decision"] == ("same" if verdict.decision else "different")
        assert done.returncode == int(not verdict.decision)
        assert told["score"] == pytest.approx(float(verdict.score), abs=1e-4)
        assert told["threshold"] == pytest.approx(verdict.threshold, abs=1e-4)
        if told["probability"] is not None:
            assert told["probability"] == pytest.approx(verdict.probability, abs=1e-3)


def test_enrol_and_identify(bccmt, recordings, tmp_path):
    store = tmp_path / "voices.db"
    for name, path in (("ada", recordings[0]), ("bela", recordings[2])):
        done = bccmt("enroll", store, name, path)
        if "no speech" in done.stderr:
            pytest.skip("what stands for speech here is none to the detector")
        assert done.returncode == 0, done.stderr
    assert [entry["name"] for entry in json.loads(bccmt("enroll", "--list", store, "--json").stdout)] == [
        "ada",
        "bela",
    ]
    done = bccmt("identify", store, recordings[1], "--threshold", "0", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["speaker"] == "ada"
    done = bccmt("listen", store, "ada", "--file", recordings[0], "--fast", "--error", "0.1")
    assert done.returncode == 0 and done.stdout.startswith("it is ada, after "), done.stderr
    assert bccmt("enroll", "--delete", "ada", store).stdout.startswith("deleted ada (1 utterance)")


def test_an_archive_by_two_processes(bccmt, recordings, tmp_path):
    options = ["--archive", tmp_path / "kept", "--jobs", "2", "-o", tmp_path / "out.npz"]
    done = bccmt("embed", "-", *options, stdin="\n".join(recordings))
    assert done.returncode == 0 and "4 recordings" in done.stderr, done.stderr
    assert np.load(tmp_path / "out.npz")["embeddings"].shape == (4, 192)


def test_the_python_face(bccmt, recordings):
    code = (
        "import sys; from speechbrain_bccmt.inference import GraphVerifier; model = GraphVerifier.load()\n"
        "print(model.embed(sys.argv[1]).shape, *model.verify_files(sys.argv[1], sys.argv[1]))"
    )
    done = bccmt(recordings[0], code=code)
    assert done.stdout.startswith("(192,) 1.0"), done.stderr


def test_what_is_missing_is_named_in_a_line(bccmt, recordings, tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    trained = write_hub_folder(tmp_path / "trained")
    for arguments, message in (
        (
            ("embed", tmp_path / "a.m4a"),
            r"a.m4a: cannot be read: m4a, mp3, .* pip install 'bccmt-runtime[containers]'",
        ),
        (("embed", recordings[0], "--engine", "torch"), "needs PyTorch here"),
        (("embed", recordings[0], "--device", "cuda"), "needs PyTorch here"),
        (("embed", recordings[0], "-m", trained), "needs PyTorch here"),
        (("embed", recordings[0], "-m", "owner/model"), "pip install huggingface_hub"),
        (("embed", recordings[0], "-o", tmp_path / "a.safetensors"), "pip install safetensors"),
        (("embed", recordings[0], "-m", tmp_path), "no model in"),
        (("evaluate",), "No such command 'evaluate'"),
    ):
        done = bccmt(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
        assert len(done.stderr.splitlines()) == 1
        for part in message.split(".*"):
            assert part in done.stderr


def test_bad_input_is_refused_as_by_the_full_package(bccmt, tmp_path, expected):
    clips = {"silent": np.zeros(16000), "short": np.zeros(160), "nan": np.full(16000, np.nan)}
    for name, wav in clips.items():
        soundfile.write(tmp_path / f"{name}.wav", wav, 16000, "FLOAT")
    (tmp_path / "text.wav").write_text("no sound")
    done = bccmt("embed", tmp_path)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert (
        json.loads(line)["speech_seconds"] == 0 and "warning: " in done.stderr and "no speech" in done.stderr
    )
    for name in ("nan", "short", "text"):
        with pytest.raises(ValueError) as caught:
            expected[0].embed_file(tmp_path / f"{name}.wav")
        assert f"error: {caught.value}" in done.stderr


def test_a_damaged_model_is_named(bccmt, recordings, wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "speechbrain_bccmt" / "models" / "tiny"
    graph = folder / "waveform.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    done = bccmt("embed", recordings[0], "-m", folder)
    assert done.returncode == 2 and "waveform.onnx is damaged, or not the file that" in done.stderr


def test_no_module_of_it_needs_more_than_it_requires(wheel):
    """Checks the top-level imports of every module, whether or not the other tests' commands reach it."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.endswith(".py")}
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(sorted({name.split(".")[0] for name in sys.modules} & set("torch torchaudio speechbrain scipy sklearn".split())))
"""
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names]
    modules.remove("speechbrain_bccmt.__main__")
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
