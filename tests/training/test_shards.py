"""Shards: what is packed, that crops from them are those from the files, and the order in which they are read."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.sampler import DistributedSamplerWrapper

from speechbrain_bccmt.audio.members import Member
from speechbrain_bccmt.corpora.shards import read_index, write_shards
from speechbrain_bccmt.training.crops import TrainingCrops
from speechbrain_bccmt.training.shards import ShardOrder, place_in_shards


@pytest.fixture
def rows(tmp_path):
    """Rows of train.csv: files of several formats, rates and channels, and two stretches of one."""
    rng, rows = np.random.default_rng(0), []

    def add(name, file, start, stop, rate):
        fields = {"start": start, "stop": stop, "spk_id": name.split("/")[0], "sample_rate": rate}
        rows.append({"ID": name, "wav": str(file)} | {key: str(value) for key, value in fields.items()})

    for number, (ending, rate, channels) in enumerate(
        [(".wav", 16000, 1), (".flac", 8000, 2), (".ogg", 16000, 1), (".opus", 48000, 1), (".mp3", 16000, 1)] * 2
    ):
        file = tmp_path / f"{number}{ending}"
        options = {"format": "OGG", "subtype": "OPUS"} if ending == ".opus" else {}
        soundfile.write(file, 0.1 * rng.normal(size=(rate * (6 + number) // 10, channels)), rate, **options)
        add(f"s{number % 3}/v1.2/{number}.é", file, 0, rate * (6 + number) // 10, rate)
    add("s9/a", tmp_path / "0.wav", 1000, 5000, 16000)
    add("s9/b", tmp_path / "0.wav", 5000, 9600, 16000)
    return rows


def crops_of(rows, tmp_path, shards=None, seconds=0.3):
    data = {row["ID"]: dict(row) for row in rows}
    if shards is not None:
        place_in_shards(data, shards)
    crops = TrainingCrops(data, tmp_path / "labels.txt", seconds, speeds=(100, 90))
    crops.set_epoch(3)
    return {crops[i]["id"]: crops[i]["sig"] for i in range(len(crops))}


@pytest.mark.parametrize("seconds", [0.3, None])
def test_crops_from_shards_are_those_from_files(rows, tmp_path, seconds):
    assert write_shards(rows, tmp_path / "shards", 40e3, jobs=2, progress=False) > 2
    expected = crops_of(rows, tmp_path, seconds=seconds)
    for name, crop in crops_of(rows, tmp_path, tmp_path / "shards", seconds).items():
        packed_again = name.startswith("s9") or next(r for r in rows if r["ID"] == name)["wav"].endswith(".mp3")
        assert crop.shape == expected[name].shape
        # What is cut out or decoded is packed in 16 bits.
        assert (crop - expected[name]).abs().max() <= (1.01 / 32768 if packed_again else 1e-6)


def test_everything_as_flac(rows, tmp_path):
    write_shards(rows, tmp_path / "shards", flac=True, progress=False)
    assert all(member.name.endswith(".flac") for _, member, _, _ in read_index(tmp_path / "shards"))
    expected = crops_of(rows, tmp_path)
    for name, crop in crops_of(rows, tmp_path, tmp_path / "shards").items():
        assert (crop - expected[name]).abs().max() <= 1.01 / 32768


def test_webdataset_reads_them(rows, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="the reader to compare with: pip install webdataset")
    write_shards(rows, tmp_path / "shards", 40e3, progress=False)
    found = {}
    for sample in webdataset.WebDataset(sorted(map(str, (tmp_path / "shards").glob("*.tar"))), shardshuffle=False):
        about = json.loads(sample["json"])
        (audio,) = (sample[key] for key in ("wav", "flac", "ogg") if key in sample)
        found[about["id"]] = audio, about
    assert found.keys() == {row["ID"] for row in rows}
    for row in rows:
        audio, about = found[row["ID"]]
        assert about["spk_id"] == row["spk_id"]
        if row["start"] == "0" and not row["wav"].endswith(".mp3"):
            assert audio == open(row["wav"], "rb").read()


def test_packing_goes_on_where_it_was_stopped(rows, tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    count = write_shards(rows, folder, 40e3, progress=False)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    (folder / "shard-000001.csv").unlink()  # the tar may be half of one: a kill comes before its index
    (folder / "shard-000001.tar").write_bytes(b"half")
    assert write_shards(rows, folder, 40e3, progress=False) == count
    for name, (content, time) in before.items():
        assert (folder / name).read_bytes() == content
        assert name.startswith(("shard-000001", "plan")) or (folder / name).stat().st_mtime_ns == time
    with pytest.raises(ValueError, match="holds shards of other utterances"):
        write_shards(rows[1:], folder, 40e3, progress=False)


def test_mistakes_are_named(rows, tmp_path):
    folder = tmp_path / "shards"
    data = {row["ID"]: dict(row) for row in rows}
    with pytest.raises(FileNotFoundError, match="holds no shards"):
        place_in_shards(data, folder)
    write_shards(rows[1:], folder, progress=False)
    with pytest.raises(ValueError, match=f"1 of 12 training utterances are not .*, such as '{rows[0]['ID']}'"):
        place_in_shards(dict(data), folder)
    other = {rows[1]["ID"]: rows[1] | {"stop": "100"}}
    with pytest.raises(ValueError, match="was packed with another length"):
        place_in_shards(other, folder)
    (index,) = folder.glob("*.csv")
    lines = list(csv.reader(index.open()))
    index.write_text("\n".join(",".join(line[:2]) for line in lines))
    with pytest.raises(ValueError, match=r"shard-000000.csv: is damaged"):
        place_in_shards(data, folder)


def test_a_truncated_shard_is_named(rows, tmp_path):
    write_shards(rows, tmp_path / "shards", progress=False)
    (tar,) = (tmp_path / "shards").glob("*.tar")
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cannot read s.* in .*shard-000000.tar .*truncated"):
        crops_of(rows, tmp_path, tmp_path / "shards")


def order(epoch, streams=1, buffer=20, seed=0):
    members = [Member(f"{shard}.tar", offset, 1, "") for offset in range(50) for shard in range(10)]
    found = ShardOrder(members, buffer, seed, streams)
    found.set_epoch(epoch)
    return [(int(members[index].file[0]), members[index].offset) for index in found], found


def test_the_order_goes_from_shard_to_shard():
    drawn, _ = order(1)
    assert sorted(drawn) == [(shard, offset) for shard in range(10) for offset in range(50)]
    # A window of twenty utterances opens a shard when the previous one has only twenty left.
    first = [next(i for i, (shard, _) in enumerate(drawn) if shard == s) for s in range(10)]
    last = [max(i for i, (shard, _) in enumerate(drawn) if shard == s) for s in range(10)]
    assert sum(end - begin for begin, end in zip(first, last, strict=True)) < 10 * (50 + 4 * 20)
    one_shard = [offset for shard, offset in drawn if shard == drawn[0][0]]
    assert one_shard != sorted(one_shard)
    assert drawn == order(1)[0] and drawn != order(2)[0] and drawn != order(1, seed=1)[0]
    assert [shard for shard, _ in order(2)[0]] != [shard for shard, _ in drawn]
    assert order(1, buffer=10_000)[0] != drawn


@pytest.mark.parametrize("processes", [2, 3])
def test_each_process_has_shards_of_its_own(processes):
    _, sampler = order(1, streams=processes)
    parts = [
        list(DistributedSamplerWrapper(sampler, num_replicas=processes, rank=rank, shuffle=False))
        for rank in range(processes)
    ]
    shards = [{index % 10 for index in part} for part in parts]
    assert set(torch.tensor(sum(parts, [])).tolist()) == set(range(500))
    assert len(sum(parts, [])) <= 500 + processes
    # A shard that lies across a boundary between processes may be shared.
    assert sum(map(len, shards)) <= 10 + processes - 1
