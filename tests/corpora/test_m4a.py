"""Conversion of m4a files."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.corpora import m4a
from speechbrain_bccmt.corpora.m4a import convert_m4a
from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb
from tests.audio.test_containers import encode


@pytest.fixture(scope="module")
def m4a_file(tmp_path_factory):
    """One second of a 440 Hz tone as AAC."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    return encode(tmp_path_factory.mktemp("m4a") / "tone.m4a", tone, 44100, "aac")


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_converts_to_sixteen_kilohertz_mono(tmp_path, m4a_file, extension):
    target = tmp_path / "deep" / "er" / f"tone.{extension}"
    assert convert_m4a([str(m4a_file)], [str(target)], progress=False) == {}
    samples, rate = soundfile.read(target)
    assert rate == 16000 and samples.ndim == 1
    assert abs(len(samples) - 16000) <= 2048  # AAC pads to whole frames of 1024
    spectrum = np.abs(np.fft.rfft(samples[2000:14000]))
    assert abs(np.argmax(spectrum) * 16000 / 12000 - 440) < 2
    assert os.listdir(target.parent) == [target.name]


def test_what_is_done_is_skipped_and_newer_sources_are_converted_again(tmp_path, m4a_file):
    source, target = tmp_path / "a.m4a", tmp_path / "a.wav"
    shutil.copy(m4a_file, source)
    convert_m4a([str(source)], [str(target)], progress=False)
    first = target.stat().st_mtime_ns
    convert_m4a([str(source)], [str(target)], progress=False)
    assert target.stat().st_mtime_ns == first
    os.utime(source, (2e9, 2e9))
    convert_m4a([str(source)], [str(target)], progress=False)
    assert target.stat().st_mtime_ns != first


def test_damaged_sources_are_reported_and_leave_nothing(tmp_path, m4a_file):
    content = m4a_file.read_bytes()
    sources = {"zero": b"", "text": b"no audio", "cut": content[: len(content) // 2], "good": content}
    for name, data in sources.items():
        (tmp_path / f"{name}.m4a").write_bytes(data)
    paths = [str(tmp_path / f"{name}.m4a") for name in sources]
    failed = convert_m4a(paths, [str(tmp_path / "out" / f"{name}.wav") for name in sources], progress=False)
    assert set(failed) == set(paths[:3])
    assert all(failed.values())  # each with a reason
    assert os.listdir(tmp_path / "out") == ["good.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_run_leaves_nothing_under_the_final_name_and_is_tidied_up(tmp_path, m4a_file):
    """The kill comes when half of the file is written; the next run removes that half."""
    out = tmp_path / "out"
    script = (
        "import os, pathlib, signal, sys\nfrom speechbrain_bccmt.corpora.m4a import convert_m4a\n"
        "def half(path, content):\n"
        "    with open(path, 'wb') as file: file.write(content[:len(content) // 2])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path.write_bytes = half\n"
        "convert_m4a(sys.argv[1:2], sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", script, str(m4a_file), str(out / "a.wav")]
    killed = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (leftover,) = os.listdir(out)
    assert leftover.startswith(".") and ".partial." in leftover
    assert convert_m4a([str(m4a_file)], [str(out / "a.wav")], progress=False) == {}
    assert os.listdir(out) == ["a.wav"]


def test_full_disk_stops_the_run(tmp_path, m4a_file, monkeypatch):
    calls = []

    def full(path, content):
        calls.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    targets = [str(tmp_path / "out" / f"{i}.wav") for i in range(50)]
    with pytest.raises(OSError, match="no space left to write .*out") as error:
        convert_m4a([str(m4a_file)] * 50, targets, workers=2, progress=False)
    assert error.value.errno == errno.ENOSPC and len(calls) < 50  # the rest is not tried
    assert os.listdir(tmp_path / "out") == []


def test_the_final_name_only_ever_shows_the_whole_file(tmp_path, m4a_file, monkeypatch):
    seen, replace = [], os.replace

    def look(source, target):
        seen.append((soundfile.info(source).frames, os.path.exists(target)))
        replace(source, target)

    monkeypatch.setattr(m4a.os, "replace", look)
    assert convert_m4a([str(m4a_file)], [str(tmp_path / "a.wav")], progress=False) == {}
    assert seen == [(soundfile.info(tmp_path / "a.wav").frames, False)]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a.mp3: the ending is one of .wav, .flac"):
        convert_m4a([str(tmp_path / "a.m4a")], [str(tmp_path / "a.mp3")], progress=False)


def test_preparation_converts_once(tmp_path, m4a_file):
    for speaker in range(4):
        for n in range(3):
            path = tmp_path / "vox2" / "dev" / "aac" / f"id{speaker}" / "video" / f"{n:05d}.m4a"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(m4a_file, path)
    arguments = dict(dev_speakers=2, progress=False)
    with pytest.raises(ValueError, match="12 files are m4a.*converted_folder"):
        prepare_voxceleb(tmp_path / "vox2", tmp_path / "save", **arguments)
    arguments["converted_folder"] = tmp_path / "converted"
    first = prepare_voxceleb(tmp_path / "vox2", tmp_path / "save", **arguments)
    assert first.n_utterances == 6 and first.n_speakers == 2
    converted = sorted((tmp_path / "converted").rglob("*.wav"))
    assert len(converted) == 12
    assert not prepare_voxceleb(tmp_path / "vox2", tmp_path / "save", **arguments).rebuilt
    converted[0].unlink()
    assert prepare_voxceleb(tmp_path / "vox2", tmp_path / "save", **arguments).rebuilt
    assert converted[0].is_file()
