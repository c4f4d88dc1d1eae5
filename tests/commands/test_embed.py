"""`bccmt embed`: what it reads, and what it writes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors import safe_open

from speechbrain_bccmt import cli
from speechbrain_bccmt.inference.embedding_files import read_embeddings
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import voice


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "hub")


@pytest.fixture
def files(tmp_path):
    names = ["wav/ada/one.wav", "wav/ada/two.flac", "wav/bela/three.ogg"]
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, voice(0.5 + seed / 10, seed), 16000)
    (tmp_path / "wav" / "notes.txt").write_text("no recording")
    return [str(tmp_path / name) for name in names]


@pytest.fixture
def expected(folder, files):
    return SpeakerVerification.from_hparams(folder, run_opts={"device": "cpu"}).embed(files).numpy()


def run(*arguments, stdin=None):
    result = CliRunner().invoke(cli.main, ["embed", "-m", *map(str, arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_lines_of_json(folder, files, expected):
    result = run(folder, *files)
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and [entry["id"] for entry in entries] == files
    assert np.allclose([entry["embedding"] for entry in entries], expected, rtol=1e-6)
    assert [entry["seconds"] for entry in entries] == [0.5, 0.6, 0.7]


def test_ways_to_name_files(folder, files, tmp_path):
    def ids(*arguments, **options):
        return [json.loads(line)["id"] for line in run(folder, *arguments, **options).stdout.splitlines()]

    assert ids(tmp_path / "wav") == files
    assert ids(tmp_path / "wav" / "**" / "*.*a*") == files[:2]
    assert ids("-", stdin="\n".join([files[2], "", files[0]]) + "\n") == [files[2], files[0]]
    assert ids(files[1], tmp_path / "wav") == [files[1], files[0], files[2]]  # each once
    assert ids(tmp_path / "wav", "--root", tmp_path / "wav") == [
        "ada/one.wav",
        "ada/two.flac",
        "bela/three.ogg",
    ]


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".json", ".jsonl"])
def test_files_written(folder, files, expected, tmp_path, ending):
    path = tmp_path / "out" / f"embeddings{ending}"
    result = run(folder, *files, "-o", path)
    assert result.exit_code == 0 and result.stdout == ""
    if ending == ".npz":
        with np.load(path) as stored:
            ids, embeddings, seconds = stored["ids"].tolist(), stored["embeddings"], stored["seconds"]
    elif ending == ".safetensors":
        with safe_open(path, "numpy") as stored:
            ids = json.loads(stored.metadata()["ids"])
            embeddings, seconds = stored.get_tensor("embeddings"), stored.get_tensor("seconds")
    else:
        text = path.read_text()
        entries = json.loads(text) if ending == ".json" else [json.loads(line) for line in text.splitlines()]
        ids, embeddings = [entry["id"] for entry in entries], [entry["embedding"] for entry in entries]
        seconds = [entry["seconds"] for entry in entries]
    assert ids == files
    assert np.allclose(embeddings, expected, rtol=1e-6)
    assert np.allclose(seconds, [0.5, 0.6, 0.7])
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument"),
        (["a.wav", "-o", "a.txt"], "a.txt: its ending is none of .npz, .safetensors, .json, .jsonl"),
        (["no*match"], "no*match: matches no file"),
        (["a.wav", "--root", "/no/such/folder"], "does not exist"),
    ],
)
def test_misuse(folder, arguments, told):
    result = run(folder, *arguments)
    assert result.exit_code == 2 and result.stdout == "" and told in result.stderr


def test_nothing_to_embed(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the folder holds no recording" in run(folder, tmp_path / "empty").stderr
    assert "no recordings are named" in run(folder, "-", stdin="\n").stderr


def test_whole_process(folder, files, tmp_path):
    """In a process of its own: a decoder in C comments on damaged mp3s beside Python's standard error."""
    damaged = tmp_path / "damaged.mp3"
    soundfile.write(damaged, voice(1.0), 16000)
    damaged.write_bytes(damaged.read_bytes()[:500])
    command = [
        sys.executable,
        "-m",
        "speechbrain_bccmt.cli",
        "embed",
        "--no-vad",  # to a detector, the voices of the tests are noise
        "-m",
        str(folder),
        files[0],
        str(damaged),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == files[:1]
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "damaged.mp3" in done.stderr


def test_a_list_with_a_byte_order_mark(folder, files):
    result = run(folder, "-", stdin="\ufeff" + files[0] + "\r\n")
    assert result.exit_code == 0 and json.loads(result.stdout)["id"] == files[0]


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta"])
def test_devices_that_are_not_here(folder, files, device):
    result = run(folder, files[0], "--device", device)
    assert result.exit_code == 2 and result.stderr.startswith(f"error: device {device} cannot be used here")
    assert result.stderr.count("\n") == 1


def test_where_nothing_can_be_written_is_told_before_the_work(folder, files, tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    monkeypatch.setattr(SpeakerVerification, "embed_file", lambda *_: pytest.fail("embeds in vain"))
    result = run(folder, *files, "-o", tmp_path / "x.npz")
    assert result.exit_code == 2
    assert result.stderr == f"error: [Errno 13] Permission denied, cannot write {tmp_path / 'x.npz'}\n"


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_names_that_are_no_text_are_told_in_json(folder, files):
    path = os.fsdecode(os.fsencode(os.path.dirname(files[0])) + b"/\xff.wav")
    os.rename(files[0], path)
    done = subprocess.run(
        [sys.executable, "-m", "speechbrain_bccmt.cli", "embed", "-m", str(folder), path],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["id"] == path


def test_shards_of_an_archive_are_parts_of_one(folder, files, expected, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    for shard, count in (("1/2", 2), ("2/2", 1)):
        result = run(folder, *files, "--archive", kept, "--shard", shard)
        assert result.exit_code == 0 and result.stdout == ""
        assert result.stderr.startswith(f"{count} recordings of 0.00 h embedded")
    monkeypatch.setattr("speechbrain_bccmt.audio.recording.Recording.open", None)  # lengths are kept
    result = run(folder, *files, "--archive", kept, "-o", tmp_path / "all.npz")
    assert result.exit_code == 0 and "0 recordings" in result.stderr and "3 were there" in result.stderr
    stored = read_embeddings(tmp_path / "all.npz")
    assert stored.ids == files and np.allclose(stored.seconds, [0.5, 0.6, 0.7])
    assert np.allclose(stored.vectors, expected, rtol=1e-4, atol=1e-5)
    assert np.allclose(np.load(tmp_path / "all.npz")["speech_seconds"], [0.5, 0.6, 0.7])


def test_lengths_that_an_earlier_version_did_not_keep_are_measured(folder, files, tmp_path):
    run(folder, *files, "--archive", tmp_path / "kept")
    (index,) = (tmp_path / "kept").rglob("*.csv")
    lines = index.read_text().splitlines()
    assert lines[0].endswith(",seconds,speech_seconds")
    index.write_text("".join(line.rsplit(",", 2)[0] + "\n" for line in lines))
    result = run(folder, *files, "--archive", tmp_path / "kept", "-o", tmp_path / "all.npz")
    assert "3 were there" in result.stderr
    stored = np.load(tmp_path / "all.npz")
    assert np.allclose(stored["seconds"], [0.5, 0.6, 0.7]) and np.isnan(stored["speech_seconds"]).all()


def test_recordings_of_an_archive_that_cannot_be_used_are_reported(folder, files, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    result = run(folder, tmp_path / "bad.wav", *files, "--archive", tmp_path / "kept", "--quiet")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ") and "bad.wav" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--jobs", "2"], "--jobs needs --archive"),
        (["--jobs", "0", "--archive", "kept"], "0 is not in the range"),
        (["--shard", "0/3"], "--shard is '0/3', expected I/N"),
        (["--shard", "4/3"], "--shard is '4/3', expected I/N"),
        (["--shard", "two"], "--shard is 'two', expected I/N"),
        (["--archive", "kept", "-o", "a.json"], "a.json: its ending is none of .npz, .safetensors"),
    ],
)
def test_misuse_of_archives(folder, arguments, told):
    result = run(folder, "a.wav", *arguments)
    assert result.exit_code == 2 and told in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(("threads", "expected"), [(None, 1), ("2", 2)])
def test_one_thread_unless_told_otherwise(folder, files, monkeypatch, threads, expected):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    try:
        torch.set_num_threads(2)  # what the variable does when a program starts
        assert run(folder, files[0]).exit_code == 0 and torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
