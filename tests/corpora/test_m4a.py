"""Conversion of m4a files through ffmpeg."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.corpora.m4a import convert_m4a
from speechbrain_bccmt.corpora.voxceleb import prepare_voxceleb

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="the ffmpeg command is not installed"
)


@pytest.fixture(scope="module")
def m4a_file(tmp_path_factory):
    """One second of a 440 Hz tone as AAC."""
    folder = tmp_path_factory.mktemp("m4a")
    soundfile.write(folder / "tone.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000), 16000)
    command = ["ffmpeg", "-v", "error", "-i", folder / "tone.wav", "-c:a", "aac", folder / "tone.m4a"]
    subprocess.run(command, check=True)
    return folder / "tone.m4a"


def fake_ffmpeg(folder, script):
    """Put a shell script in place of ffmpeg, with the file to write as $out; return the PATH to it."""
    folder.mkdir()
    command = folder / "ffmpeg"
    command.write_text('#!/bin/sh\nfor out in "$@"; do :; done\n' + script)
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@needs_ffmpeg
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


@needs_ffmpeg
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


@needs_ffmpeg
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


def test_missing_ffmpeg_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match="ffmpeg.*install"):
        convert_m4a([str(tmp_path / "a.m4a")], [str(tmp_path / "a.wav")], progress=False)


def test_a_failed_run_leaves_no_half_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", fake_ffmpeg(tmp_path / "bin", 'printf half > "$out"; kill -9 $$'))
    (tmp_path / "a.m4a").write_bytes(b"x")
    failed = convert_m4a([str(tmp_path / "a.m4a")], [str(tmp_path / "out" / "a.wav")], progress=False)
    assert list(failed) == [str(tmp_path / "a.m4a")]
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and a shell")
def test_killed_run_leaves_nothing_under_the_final_name_and_is_tidied_up(tmp_path, monkeypatch):
    """The kill comes when ffmpeg has written half; the next run removes that half."""
    out, source = tmp_path / "out", tmp_path / "a.m4a"
    source.write_bytes(b"x")
    # Kills the converting process, its parent, as soon as half the file is there.
    half = 'printf half > "$out"; kill -9 $PPID'
    monkeypatch.setenv("PATH", fake_ffmpeg(tmp_path / "killing", half))
    script = (
        "import sys\nfrom speechbrain_bccmt.corpora.m4a import convert_m4a\n"
        "convert_m4a(sys.argv[1:2], sys.argv[2:])\n"
    )
    command = [sys.executable, "-c", script, str(source), str(out / "a.wav")]
    killed = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = os.listdir(out)
    assert leftover.startswith(".") and ".partial." in leftover
    monkeypatch.setenv("PATH", fake_ffmpeg(tmp_path / "whole", 'printf whole > "$out"'))
    assert convert_m4a([str(source)], [str(out / "a.wav")], progress=False) == {}
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a.wav": "whole"}


def test_the_final_name_only_ever_shows_the_whole_file(tmp_path, monkeypatch):
    """A rename takes over the very file that ffmpeg wrote; a copy is another one, half of it at first."""
    script = 'printf whole > "$out"; ls -i "$out" | cut -d " " -f 1 > "$(dirname $0)/inode"'
    monkeypatch.setenv("PATH", fake_ffmpeg(tmp_path / "bin", script))
    (tmp_path / "a.m4a").write_bytes(b"x")
    assert convert_m4a([str(tmp_path / "a.m4a")], [str(tmp_path / "a.wav")], progress=False) == {}
    assert (tmp_path / "a.wav").stat().st_ino == int((tmp_path / "bin" / "inode").read_text())


def test_full_disk_stops_the_run(tmp_path, monkeypatch):
    script = 'echo x >> "$(dirname $0)/calls"; echo "$out: No space left on device" >&2; exit 1'
    monkeypatch.setenv("PATH", fake_ffmpeg(tmp_path / "bin", script))
    sources = [tmp_path / f"{i}.m4a" for i in range(50)]
    for source in sources:
        source.write_bytes(b"x")
    targets = [str(tmp_path / "out" / f"{i}.wav") for i in range(50)]
    with pytest.raises(OSError, match="no space left to write .*out") as error:
        convert_m4a([str(source) for source in sources], targets, workers=2, progress=False)
    assert error.value.errno == errno.ENOSPC
    assert len((tmp_path / "bin" / "calls").read_text().split()) < 50  # the rest is not tried


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a.mp3: the ending is one of .wav, .flac"):
        convert_m4a([str(tmp_path / "a.m4a")], [str(tmp_path / "a.mp3")], progress=False)


@needs_ffmpeg
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
