"""Archives on Ray: a cluster of two nodes on this machine, and the death of a worker. Skips without Ray."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import soundfile

from speechbrain_bccmt.inference import archive as module
from speechbrain_bccmt.inference import ray_workers
from speechbrain_bccmt.inference.archive import Archive
from speechbrain_bccmt.inference.loading import load_verifier
from tests.voices import voice

ray = pytest.importorskip("ray", reason="no Ray: pip install 'speechbrain_bccmt[ray]'")
COUNT = 60


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    found = Cluster(initialize_head=True, head_node_args=node)
    found.add_node(**node)
    yield found.address
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(COUNT):
        soundfile.write(folder / f"{number:02d}.wav", voice(1.0 + number / 50, number % 7), 16000)
    (folder / "bad.wav").write_text("no audio")
    return {str(path): path.name for path in sorted(folder.iterdir())}


def archive(folder, address=None, jobs=1):
    return Archive(folder, load_verifier("tiny", vad=False), jobs, address)


def names(folder):
    return sorted(row.split(",")[0] for path in folder.rglob("[!.]*.csv") for row in path.read_text().splitlines()[1:])


def test_results_of_two_nodes_are_those_of_one_process_though_a_worker_is_killed(
    cluster, paths, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "TASK", 4)
    expected = archive(tmp_path / "one")
    one = dict(expected.embed(paths))
    pids = tmp_path / "pids"
    pids.mkdir()

    class Slow(ray_workers.Worker):
        """Says which process it is, and takes its time, so that it can be killed in the middle."""

        def __call__(self, batch):
            (pids / str(os.getpid())).touch()
            time.sleep(0.3)
            return super().__call__(batch)

    monkeypatch.setattr(ray_workers, "Worker", Slow)
    killed = []

    def kill():
        deadline = time.monotonic() + 90
        while len(list(pids.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        killed.append(int(min(pids.iterdir(), key=lambda path: path.stat().st_mtime).name))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    ours = archive(tmp_path / "ray", cluster, jobs=2)
    results = list(ours.embed(paths))
    killer.join()
    assert killed and len(list(pids.iterdir())) >= 3  # the dead one was replaced
    assert sorted(path for path, _ in results) == sorted(paths)  # each once
    assert names(tmp_path / "ray") == names(tmp_path / "one") == sorted(set(paths.values()) - {"bad.wav"})
    for path, result in results:
        assert type(result) is type(one[path])
        if isinstance(result, Exception):
            assert str(result) == str(one[path])
        else:
            assert np.array_equal(result.embedding, one[path].embedding) and result.warnings == one[path].warnings
    # Nothing is left to do, and more processes than the cluster has cores do what there is.
    good = dict(list(paths.items())[:-1])
    assert list(archive(tmp_path / "ray", cluster, jobs=2).embed(good)) == []
    assert len(list(archive(tmp_path / "more", cluster, jobs=5).embed(good))) == COUNT


def test_a_cluster_that_is_not_there_is_named(paths, tmp_path):
    ray.shutdown()
    with pytest.raises(OSError, match="--ray 127.0.0.1:1: no Ray cluster can be reached there"):
        list(archive(tmp_path / "ray", "127.0.0.1:1", jobs=2).embed(paths))
