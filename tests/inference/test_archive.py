"""Archives: what is computed, by how many processes, and what a kill leaves."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.inference import archive as module
from speechbrain_bccmt.inference.archive import Archive
from speechbrain_bccmt.inference.loading import load_verifier
from speechbrain_bccmt.inference.results import EmbeddedUtterance
from speechbrain_bccmt.inference.verification import SpeakerVerification
from tests.tiny_hub_folder import write_hub_folder
from tests.voices import voice

SECONDS = 90
COUNT = 96
# The command, but a shard is written for each recording.
COMMAND = """if __name__ == "__main__":
    import speechbrain_bccmt.inference.embedding_store as store
    from speechbrain_bccmt.cli import main
    store.KEEP_EVERY = 0
    main()
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return write_hub_folder(tmp_path_factory.mktemp("hub") / "hub")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Paths by what is particular about them."""
    folder = tmp_path_factory.mktemp("recordings")
    found = {}
    for name, wav, rate in (
        ("one.wav", voice(0.5, 0), 16000),
        ("two.flac", voice(1.7, 1), 8000),
        ("three.ogg", voice(0.7, 2), 16000),
        ("long.wav", voice(31.0, 3), 16000),
        ("silent.wav", np.zeros(9000), 16000),
        ("short.wav", voice(0.05, 4), 16000),
    ):
        found[name] = str(folder / name)
        soundfile.write(found[name], wav, rate)
    damaged = found["damaged.wav"] = str(folder / "damaged.wav")
    Path(damaged).write_bytes(Path(found["one.wav"]).read_bytes()[:2000])
    return found | {"absent.wav": str(folder / "absent.wav")}


def load(source, vad=False):
    return load_verifier(source, vad=vad)


def test_embeddings_of_speech_alone_are_kept_apart_from_whole_ones(hub, detector, tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.concatenate([np.zeros(40000), voice(1.0, 5)]), 16000)
    # To the detector this voice is noise.
    whole, speech = (Archive(tmp_path / "kept", load(hub, vad)) for vad in (False, True))
    (one,), (other,) = ([result for _, result in archive.embed({path: "a"})] for archive in (whole, speech))
    assert not one.warnings and "speech" in other.warnings[0]
    assert len(whole.store) == len(speech.store) == 1


@pytest.mark.parametrize(("source", "jobs"), [("network", 1), ("graph", 1), ("graph", 2)])
def test_results_are_those_of_the_recordings_one_by_one(hub, recordings, tmp_path, source, jobs, monkeypatch):
    source = {"network": hub, "graph": "tiny"}[source]
    monkeypatch.setattr(module, "TASK", 3)
    model, ids = load(source), {path: name for name, path in recordings.items()}
    archive = Archive(tmp_path / "kept", load(source), jobs)
    assert archive.missing(ids).keys() == ids.keys()
    results = dict(archive.embed(ids))
    assert results.keys() == ids.keys()
    for path, result in results.items():
        if ids[path] in ("absent.wav", "damaged.wav", "short.wav"):
            with pytest.raises(type(result)) as expected:
                model.embed_file(path)
            assert isinstance(result, OSError | ValueError) and path in str(result)
            assert ids[path] == "absent.wav" or str(result) == str(expected.value)
            continue
        expected = model.embed_file(path)
        assert (result.seconds, result.warnings) == (expected.seconds, expected.warnings)
        assert np.allclose(result.embedding, expected.embedding, atol=1e-4 * np.abs(expected.embedding).max())
    kept, embeddings, lengths = Archive(tmp_path / "kept", load(source)).read(ids)
    assert [ids[path] for path in kept] == ["one.wav", "two.flac", "three.ogg", "long.wav", "silent.wav"]
    assert all(
        np.array_equal(vector, results[path].embedding) for path, vector in zip(kept, embeddings, strict=True)
    )
    assert lengths.tolist() == [[results[path].seconds, results[path].speech_seconds] for path in kept]


def test_networks_embed_in_batches(hub, recordings, tmp_path, monkeypatch):
    sizes = []
    embed = SpeakerVerification.embed_waveforms

    def spy(self, wavs):
        sizes.append(len(wavs))
        return embed(self, wavs)

    monkeypatch.setattr(SpeakerVerification, "embed_waveforms", spy)
    list(Archive(tmp_path / "kept", load(hub)).embed({path: path for path in recordings.values()}))
    assert [size for size in sizes if size > 1] == [4]  # the long one goes in chunks


def test_what_is_there_is_not_computed_again_and_what_changed_is(hub, recordings, tmp_path, monkeypatch):
    paths = {recordings[name]: name for name in ("one.wav", "two.flac")}
    moved = {str(tmp_path / name): name for name in paths.values()}
    for path, name in paths.items():
        (tmp_path / name).write_bytes(Path(path).read_bytes())
    assert len(dict(Archive(tmp_path / "kept", load(hub)).embed(moved))) == 2
    again = Archive(tmp_path / "kept", load(hub))
    assert again.missing(moved) == {} and list(again.embed(moved)) == []
    soundfile.write(tmp_path / "one.wav", voice(0.9, 7), 16000)
    assert list(again.missing(moved)) == [str(tmp_path / "one.wav")]
    ((path, result),) = again.embed(moved)
    assert result.seconds == 0.9
    # By another model, all.
    assert len(Archive(tmp_path / "kept", load("tiny")).missing(moved)) == 2


def shards(folder):
    return sorted(folder.rglob("[!.]*.csv"))


def rows(folder):
    return [row["ID"] for path in shards(folder) for row in csv.DictReader(path.open(encoding="utf-8"))]


def start(tmp_path, *arguments):
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    return subprocess.Popen(
        [sys.executable, str(script), "embed", "--no-vad", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def wait_for(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(process):
    """Return the ids of the processes that a process started, and of those that these did."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [*map(int, found), *(child for one in found for child in children(one))]


@pytest.fixture
def many(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(COUNT):
        soundfile.write(folder / f"{number:02d}.wav", voice(1.0 + number / 50, number % 7), 16000)
    return folder


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_process_and_goes_on_where_it_was(hub, many, tmp_path):
    kept = tmp_path / "kept"
    process = start(
        tmp_path, "-m", str(hub), str(many), "--root", str(many), "--archive", str(kept), "--jobs", "2"
    )
    try:
        wait_for(lambda: shards(kept) or process.poll() is not None)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
        assert len(workers) >= 2
        wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    finally:
        process.kill()
    before = {path: path.read_bytes() for path in shards(kept)}
    assert 0 < len(before) == len(rows(kept)) < COUNT
    paths = {str(path): path.name for path in sorted(many.iterdir())}
    archive = Archive(kept, load(hub))
    assert len(archive.missing(paths)) == len(dict(archive.embed(paths))) == COUNT - len(before)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert sorted(rows(kept)) == list(paths.values())  # each once
    assert len(archive.read(paths)[0]) == COUNT


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_the_death_of_a_worker_is_said_and_loses_nothing(hub, many, tmp_path):
    archive, before = Archive(tmp_path / "kept", load(hub), jobs=2), set(children(os.getpid()))
    results = archive.embed({str(path): path.name for path in sorted(many.iterdir())})
    seen = [next(results)[0]]
    workers = [child for child in children(os.getpid()) if child not in before]
    os.kill(workers[-1], signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="a worker process died.*goes on from here"):
        seen.extend(path for path, _ in results)
    assert sorted(rows(tmp_path / "kept")) == sorted(Path(path).name for path in seen) and len(seen) < COUNT


def test_two_names_of_one_file_are_embedded_once(hub, recordings, tmp_path):
    one = recordings["one.wav"]
    other = str(Path(one).parent / "." / ".." / Path(one).parent.name / Path(one).name)
    archive = Archive(tmp_path / "kept", load(hub))
    (result,) = dict(archive.embed({one: "a", other: "b"})).values()
    assert isinstance(result, EmbeddedUtterance) and len(archive.store) == 1
    assert np.array_equal(*archive.read({one: "a", other: "b"})[1])
