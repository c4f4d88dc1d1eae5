"""The embedding store: nothing is embedded twice, and nothing stale is read."""

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
import torch
from speechbrain.processing.features import InputNormalization

from speechbrain_bccmt.features import KaldiFbank
from speechbrain_bccmt.inference import embedding_store as module
from speechbrain_bccmt.inference.embedding import embed_utterances, embed_with_store
from speechbrain_bccmt.inference.embedding_store import EmbeddingStore, utterance_key


class Encoder(torch.nn.Module):
    """Statistics of the features, and a note of how many utterances were embedded."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self._embedded = 0

    def forward(self, feats, lengths=None):
        self._embedded += len(feats)
        frames = torch.round(lengths * feats.shape[1]).long()
        stats = [row[:n].std(0) * self.scale for row, n in zip(feats, frames, strict=True)]
        return torch.stack(stats).unsqueeze(1)


def parts(encoder, **front_end):
    return {
        "compute_features": KaldiFbank(**front_end),
        "mean_var_norm": InputNormalization(norm_type="sentence", std_norm=False),
        "embedding_model": encoder,
    }


@pytest.fixture
def rows(tmp_path):
    generator = np.random.default_rng(0)
    rows = []
    for number in range(12):
        path = tmp_path / "wav" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, generator.normal(0, 0.1, 4000 + 400 * (number * 5 % 12)), 16000)
        rows.append({"ID": f"u{number}", "wav": str(path), "duration": "0.4"})
    return rows


def embed(rows, folder, encoder=None, **front_end):
    """Embed with the store; give the embeddings and how many utterances the network saw."""
    encoder = encoder or Encoder()
    ids, embeddings = embed_with_store(rows, **parts(encoder, **front_end), folder=folder, progress=False)
    assert ids == [row["ID"] for row in rows]
    reference = embed_utterances(rows, **parts(Encoder(encoder.scale.item()), **front_end), progress=False)[1]
    assert np.allclose(embeddings, reference, atol=1e-5) and embeddings.dtype == np.float32
    return embeddings, encoder._embedded


def test_nothing_is_embedded_twice(rows, tmp_path):
    first, embedded = embed(rows[:8], tmp_path / "store")
    assert embedded == 8
    again, embedded = embed(rows[:8][::-1], tmp_path / "store")
    assert embedded == 0 and np.array_equal(again[::-1], first)
    _, embedded = embed(rows[4:], tmp_path / "store")
    assert embedded == 4


def test_stretches_of_a_file_are_different_utterances(rows, tmp_path):
    stretches = [rows[0] | {"ID": f"s{start}", "start": start, "stop": 3000} for start in (0, 1000)]
    assert embed(stretches[:1], tmp_path / "store")[1] == 1
    assert embed(stretches, tmp_path / "store")[1] == 1
    assert embed([*stretches, rows[0]], tmp_path / "store")[1] == 1


def test_one_id_may_name_different_files(rows, tmp_path):
    assert embed(rows[:1], tmp_path / "store")[1] == 1
    assert embed([rows[1] | {"ID": "u0"}], tmp_path / "store")[1] == 1
    assert embed(rows[:1], tmp_path / "store")[1] == 0


def test_a_changed_model_or_front_end_finds_nothing(rows, tmp_path):
    assert embed(rows, tmp_path / "store")[1] == 12
    assert embed(rows, tmp_path / "store", Encoder(2.0))[1] == 12
    assert embed(rows, tmp_path / "store", window="hamming")[1] == 12
    assert embed(rows, tmp_path / "store")[1] == 0  # and the first is still there


def test_a_changed_file_is_embedded_again(rows, tmp_path):
    embed(rows, tmp_path / "store")
    wav, rate = soundfile.read(rows[3]["wav"])
    status, other = (os.stat(rows[number]["wav"]) for number in (3, 4))
    soundfile.write(rows[3]["wav"], wav[::-1] * np.linspace(0, 1, len(wav)), rate)  # of the same size
    os.utime(rows[3]["wav"], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert embed(rows, tmp_path / "store")[1] == 1
    soundfile.write(rows[4]["wav"], soundfile.read(rows[4]["wav"])[0][:-800], rate)
    os.utime(rows[4]["wav"], ns=(other.st_atime_ns, other.st_mtime_ns))  # but shorter
    assert embed(rows, tmp_path / "store")[1] == 1
    assert embed(rows, tmp_path / "store")[1] == 0


def test_a_file_that_changes_while_it_is_embedded_is_not_taken_for_the_new_one(rows, tmp_path):
    class Meddling(Encoder):
        def forward(self, feats, lengths=None):
            os.utime(rows[0]["wav"], ns=(0, 1))
            return super().forward(feats, lengths)

    embed_with_store(rows[:1], **parts(Meddling()), folder=tmp_path / "store", progress=False)
    meddling = Meddling()
    embed_with_store(rows[:1], **parts(meddling), folder=tmp_path / "store", progress=False)
    assert meddling._embedded == 1


def test_a_gone_file_is_named(rows, tmp_path):
    embed(rows, tmp_path / "store")
    os.unlink(rows[5]["wav"])
    with pytest.raises(FileNotFoundError, match="utterance 'u5': there is no file .*5.wav"):
        embed(rows, tmp_path / "store")


def test_repeated_and_no_utterances_are_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="'u0' occurs more than once"):
        embed([rows[0], rows[0]], tmp_path / "store")
    embed(rows, tmp_path / "store")
    with pytest.raises(ValueError, match="'u0' occurs more than once"):
        embed([rows[0], rows[0]], tmp_path / "store")
    with pytest.raises(ValueError, match="no utterances"):
        embed([], tmp_path / "store")


def test_what_was_done_before_an_error_is_kept(rows, tmp_path, monkeypatch):
    rows[11]["duration"] = "0.01"  # the last batch
    good = open(rows[11]["wav"], "rb").read()
    open(rows[11]["wav"], "w").write("no audio")
    encoder = Encoder()
    with pytest.raises(ValueError, match="utterance 'u11'"):
        embed_with_store(rows, **parts(encoder), folder=tmp_path / "store", batch_seconds=1, progress=False)
    assert 0 < encoder._embedded < 12
    open(rows[11]["wav"], "wb").write(good)
    assert embed(rows, tmp_path / "store")[1] == 12 - encoder._embedded


KILLED = """
import csv, sys, time, torch
from speechbrain_bccmt.inference import embedding_store as store
from speechbrain_bccmt.inference.embedding import embed_with_store
sys.path.insert(0, sys.argv[1])
from tests.inference.test_embedding_store import Encoder, parts

class Slow(Encoder):
    def forward(self, feats, lengths=None):
        time.sleep(0.02)
        return super().forward(feats, lengths)

Slow.__name__ = "Encoder"
store.KEEP_EVERY = 0.0
rows = list(csv.DictReader(open(sys.argv[2])))
embed_with_store(rows, **parts(Slow()), folder=sys.argv[3], batch_seconds=0, progress=False)
"""


def test_a_killed_run_goes_on_where_it_was(rows, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_text("ID,wav,duration\n" + "".join(",".join(row.values()) + "\n" for row in rows))
    folder = tmp_path / "store"
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(Path(__file__).resolve().parents[2]),
        str(table),
        str(folder),
    ]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 600  # the imports take long on a busy machine
    while (
        len(list(folder.glob("*/[!.]*.csv"))) < 3 and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    _, embedded = embed(rows, folder)
    assert 0 < embedded <= 9


@pytest.mark.parametrize(
    "damage",
    [
        lambda npy, index: npy.unlink(),
        lambda npy, index: npy.write_bytes(b""),
        lambda npy, index: npy.write_bytes(npy.read_bytes()[:-4]),
        lambda npy, index: np.save(npy, np.zeros((3, 3), np.float32)),
        lambda npy, index: np.save(npy, np.zeros(12, np.float32)),
        lambda npy, index: np.save(npy, np.float32(1)),
        lambda npy, index: np.save(npy, np.array([{}] * 12), allow_pickle=True),
        lambda npy, index: index.write_text("something else\n"),
        lambda npy, index: index.write_text(index.read_text()[:-30]),
        lambda npy, index: index.write_text(index.read_text() + "u,v\n"),
        lambda npy, index: index.write_bytes(b"\xff\xfe\x00"),
    ],
)
def test_a_damaged_shard_is_computed_again(rows, tmp_path, damage):
    folder = tmp_path / "store"
    embed(rows, folder)
    (npy,) = folder.glob("*/*.npy")
    damage(npy, npy.with_suffix(".csv"))
    assert embed(rows, folder)[1] == 12
    assert embed(rows, folder)[1] == 0


def test_two_runs_at_once_share_a_folder(rows, tmp_path):
    one, other = (EmbeddingStore(tmp_path / "store", "same") for _ in range(2))
    keys = [utterance_key(row) for row in rows[:3]]
    one.add(["u0", "u1"], keys[:2], np.eye(2, 4))
    other.add(["u2", "u0"], [keys[2], keys[0]], np.eye(2, 4)[::-1])
    assert keys[2] not in one and keys[1] not in other
    both = EmbeddingStore(tmp_path / "store", "same")
    assert len(both) == 3 and all(key in both for key in keys)
    assert both.read(keys[1:2]).tolist() == [[0, 1, 0, 0]]
    assert both.read([]).shape == (0, 4)
    with pytest.raises(KeyError):
        one.read(keys)


def test_thousands_of_shards_do_not_hold_files_open(rows, tmp_path):
    resource = pytest.importorskip("resource")
    store = EmbeddingStore(tmp_path / "store", "same")
    keys = [(f"/{n}.wav", 0, -1, 1, 1) for n in range(200)]
    for n, key in enumerate(keys):
        store.add([str(n)], [key], np.full((1, 2), n))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        store = EmbeddingStore(tmp_path / "store", "same")
        assert store.read(keys)[:, 0].tolist() == list(range(200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_only_a_shard_and_its_index_are_left(rows, tmp_path):
    embed(rows, tmp_path / "store")
    (folder,) = (tmp_path / "store").iterdir()
    (index,) = folder.glob("*.csv")
    for row in csv.DictReader(index.open()):
        assert row["wav"].endswith(f"/{row['ID'][1:]}.wav")
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".npy"]


def test_shards_are_written_while_it_runs(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEEP_EVERY", 0.0)
    embed_with_store(rows, **parts(Encoder()), folder=tmp_path / "store", batch_seconds=0, progress=False)
    assert len(list((tmp_path / "store").glob("*/*.csv"))) == 12
    assert embed(rows, tmp_path / "store")[1] == 0


def test_speech_alone_is_stored_beside_whole_utterances(rows, tmp_path, monkeypatch):
    """Here the second half of each utterance is its speech."""
    encoder = Encoder()
    _, whole = embed_with_store(rows, **parts(encoder), folder=tmp_path / "store", progress=False)
    monkeypatch.setattr(
        "speechbrain_bccmt.audio.speech.find_speech", lambda wav, rate: [(len(wav) // 2, len(wav))]
    )
    _, speech = embed_with_store(rows, **parts(encoder), folder=tmp_path / "store", progress=False, vad=True)
    halves = [row | {"ID": f"half {row['ID']}", "start": str(n // 2), "stop": str(n)} for row, n in (
        (row, soundfile.info(row["wav"]).frames) for row in rows
    )]
    _, expected = embed_utterances(halves, **parts(encoder), progress=False)
    cosines = (speech * expected).sum(1) / np.linalg.norm(speech, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.9999 and not np.allclose(speech, whole, rtol=0.01)
    count = encoder._embedded
    for vad, vectors in ((False, whole), (True, speech)):
        _, again = embed_with_store(rows, **parts(encoder), folder=tmp_path / "store", progress=False, vad=vad)
        assert encoder._embedded == count and np.array_equal(again, vectors)
