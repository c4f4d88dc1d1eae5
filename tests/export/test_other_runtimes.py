"""Runs every block of docs/other_runtimes.md, in its order, and compares what comes out with PyTorch."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechbrain_bccmt.cli import main
from speechbrain_bccmt.inference.verification import SpeakerVerification

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "other_runtimes.md").read_text(encoding="utf-8")
SECTIONS = {part.splitlines()[0]: part for part in PAGE.split("\n## ")[1:]}
BLOCKS = re.compile(r"^```python\n([\s\S]*?)^```$|^    (bccmt .*)$", re.MULTILINE)


def cosine(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def run(section, names):
    """Run the blocks of a section: Python on `names`, commands by this process."""
    for block in BLOCKS.finditer(SECTIONS[section]):
        code, command = block.groups()
        if code:
            exec(compile(code, f"docs/other_runtimes.md, {section}", "exec"), names)
        else:
            result = CliRunner().invoke(main, shlex.split(command)[1:])
            assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def folder(kaldi_folder, synthetic_speech, tmp_path_factory):
    """Return a folder with what the page takes for granted: a model and recordings."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "model").symlink_to(kaldi_folder)
    (folder / "recordings").mkdir()
    for number in range(4):
        soundfile.write(folder / f"recordings/{number}.wav", synthetic_speech(24000, number), 16000)
    for name, n_samples in (("a", 32000), ("b", 24160)):
        soundfile.write(
            folder / f"{name}.wav", synthetic_speech(n_samples, ord(name)), 16000, subtype="FLOAT"
        )
    return folder


@pytest.fixture(scope="module")
def names():
    """Return what the blocks have defined so far."""
    return {"__name__": "page"}


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def expected(folder):
    model = SpeakerVerification.from_hparams(folder / "model")
    return [model.embed(folder / name).numpy() for name in ("a.wav", "b.wav")]


def test_onnx_runtime(names, expected):
    run("ONNX Runtime", names)
    assert names["score"] == pytest.approx(cosine(*expected), abs=1e-4)
    assert all(cosine(*pair) > 0.9999 for pair in zip(names["embeddings"], expected, strict=True))
    listed = re.findall(r"^\| `(\w+\.onnx)`", SECTIONS["ONNX Runtime"], re.MULTILINE)
    assert sorted(path.name for path in Path("onnx").iterdir()) == sorted(listed)


def test_smaller_files(names):
    run("Smaller files", names)
    written = {path.name for folder in ("small", "onnx8") for path in Path(folder).iterdir()}
    assert written == set(re.findall(r"`(waveform[\w.-]*\.onnx)`", SECTIONS["Smaller files"]))


def test_sherpa_onnx(names, expected):
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed")
    run("sherpa-onnx", names)
    found = [names["embed_by_sherpa"](name) for name in ("a.wav", "b.wav")]
    assert all(cosine(*pair) > 0.9999 for pair in zip(found, expected, strict=True))
    assert names["same"] == (cosine(*expected) >= 0.5)


def test_pyannote_audio(names, expected):
    pytest.importorskip("pyannote.audio", reason="pyannote.audio is not installed")
    run("pyannote.audio", names)
    assert all(cosine(*pair) > 0.99999 for pair in zip(names["masked"], expected, strict=True))
    get_embedding = names["get_embedding"]
    assert get_embedding.dimension == 192 and get_embedding.metric == "cosine"
    few = names["masks"].float()
    few[1, 100:] = 0
    found = get_embedding(names["wavs"], masks=few)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()


def test_what_the_page_says_of_pyannote_audio_still_holds(folder):
    """Where this fails, pyannote.audio loads our folders by itself: change the page."""
    pipelines = pytest.importorskip("pyannote.audio.pipelines.speaker_verification")
    assert CliRunner().invoke(main, ["export", "hub", "speechbrain", "-m", "model"]).exit_code == 0
    with pytest.raises(TypeError, match="unexpected keyword argument '(token|use_auth_token)'"):
        pipelines.PretrainedSpeakerEmbedding(str(folder / "speechbrain"))
