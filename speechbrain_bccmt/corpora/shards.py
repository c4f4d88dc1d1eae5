"""Utterances packed into tar files, which are read one after another at the speed of the disk.

The files follow WebDataset: an utterance is `<id>.<format>` with `<id>.json` beside it. A CSV beside each tar file says
where its utterances are, for training, which reads crops by offset.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile
from tqdm import tqdm

from speechbrain_bccmt.audio.headers import open_decoder
from speechbrain_bccmt.audio.members import Member
from speechbrain_bccmt.audio.recording import read_mono
from speechbrain_bccmt.files import temporary_sibling

COLUMNS = ("ID", "offset", "size", "name", "frames", "sample_rate")
# Formats packed as they are: libsndfile reads them from memory and finds crops by offset.
KEPT = {"WAV": ".wav", "FLAC": ".flac", "OGG": ".ogg"}
_FLAC_BYTES_PER_SAMPLE = 1.2  # about, of speech in 16 bits


def write_shards(
    rows: Sequence[dict],
    folder: str | Path,
    shard_bytes: float = 256e6,
    flac: bool = False,
    seed: int = 1986,
    jobs: int = 1,
    progress: bool = True,
) -> int:
    """Pack utterances into tar files, in random order.

    Each shard appears whole or not at all; a restart keeps those that are there.

    Parameters
    ----------
    rows : sequence of dict
        Rows of `train.csv`. An utterance that is a whole wav, flac or ogg file is packed as it is; others are cut out
        and packed as 16-bit mono FLAC at the file's rate.
    folder : str or Path
        Where the shards are written.
    shard_bytes : float
        Size of a shard, roughly.
    flac : bool
        Pack all utterances as FLAC.
    seed : int
        Seed of the order.
    jobs : int
        Number of shards written at the same time.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    int
        Number of shards.

    Raises
    ------
    OSError, ValueError
        If a recording cannot be read, the disk is full, or the folder holds shards of other utterances.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", [0.1] * 800, 16000)
    >>> row = {"ID": "ada/1/a", "wav": str(folder / "a.wav"), "start": "0", "stop": "800", "spk_id": "ada"}
    >>> write_shards([row | {"sample_rate": "16000"}], folder / "shards", progress=False)
    1
    >>> [(name, frames) for name, _, frames, _ in read_index(folder / "shards")]
    [('ada/1/a', 800)]
    """
    rows = sorted(rows, key=lambda row: row["ID"])
    random.Random(seed).shuffle(rows)
    sizes = [_estimate(row, flac) for row in rows]
    folder = Path(folder)
    _check_plan(folder, json.dumps([flac, seed, shard_bytes, [row["ID"] for row in rows], sizes]))
    parts, filled = [[]], 0
    for row, size in zip(rows, sizes, strict=True):
        if filled + size > shard_bytes and parts[-1]:
            parts.append([])
            filled = 0
        parts[-1].append(row)
        filled += size

    def write(number: int) -> int:
        path = folder / f"shard-{number:06d}.tar"
        if not path.with_suffix(".csv").exists():
            _write_shard(path, parts[number], flac)
        return len(parts[number])

    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(rows), desc="Packing", unit="utt", disable=not progress) as bar,
    ):
        for count in pool.map(write, range(len(parts))):
            bar.update(count)
    return len(parts)


def read_index(folder: str | Path) -> Iterator[tuple[str, Member, int, int]]:
    """Yield id, place, samples and sample rate of each utterance in the shards of a folder, in order.

    Raises
    ------
    FileNotFoundError
        If there are no shards.
    ValueError
        If an index is damaged.
    """
    indices = sorted(Path(folder).glob("shard-*.csv"))
    if not indices:
        raise FileNotFoundError(f"{folder}: holds no shards, as `bccmt shards` writes them")
    for index in indices:
        shard = str(index.with_suffix(".tar"))
        try:
            with open(index, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    member = Member(shard, int(row["offset"]), int(row["size"]), row["name"])
                    yield row["ID"], member, int(row["frames"]), int(row["sample_rate"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{index}: is damaged; remove it and pack again ({error})") from error


def _estimate(row: dict, flac: bool) -> int:
    samples = int(row["stop"]) - int(row["start"])
    return int(samples * _FLAC_BYTES_PER_SAMPLE) if flac or int(row["start"]) else os.stat(row["wav"]).st_size


def _check_plan(folder: Path, plan: str) -> None:
    """Reject a folder that other utterances were packed into."""
    digest = hashlib.blake2b(plan.encode(), digest_size=16).hexdigest()
    path = folder / "plan.txt"
    if path.exists() and path.read_text() != digest:
        raise ValueError(f"{folder}: holds shards of other utterances, or packed otherwise: give another folder")
    with temporary_sibling(path) as temporary:
        temporary.write_text(digest)
        temporary.replace(path)


def _write_shard(path: Path, rows: Sequence[dict], flac: bool) -> None:
    index = []
    with temporary_sibling(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
            for row in rows:
                content, ending = _content(row, flac)
                stem, frames = _key(row["ID"]), int(row["stop"]) - int(row["start"])
                about = {"id": row["ID"], "spk_id": row["spk_id"], "seconds": frames / int(row["sample_rate"])}
                _add(tar, f"{stem}.json", json.dumps(about, ensure_ascii=False).encode())
                end = _add(tar, stem + ending, content)
                offset = end - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                index.append((row["ID"], offset, len(content), stem + ending, frames, row["sample_rate"]))
        temporary.replace(path)
    with temporary_sibling(path.with_suffix(".csv")) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(index)
        temporary.replace(path.with_suffix(".csv"))


def _content(row: dict, flac: bool) -> tuple[bytes, str]:
    """Return the bytes of an utterance and its extension: of the file as it is, or of a FLAC file."""
    start, stop, rate = int(row["start"]), int(row["stop"]), int(row["sample_rate"])
    if not flac and start == 0:
        with open_decoder(row["wav"]) as file:
            ending = KEPT.get(getattr(file, "format", ""), "")
            # A file object means that `open_decoder` had to repair the file.
            whole = ending and file.frames == stop and isinstance(file.name, str | bytes)
        if whole:
            return Path(row["wav"]).read_bytes(), ending
    packed = io.BytesIO()
    soundfile.write(packed, read_mono(row["wav"], rate, start, stop), rate, format="FLAC", subtype="PCM_16")
    return packed.getvalue(), ".flac"


def _key(name: str) -> str:
    """Return an id as WebDataset expects it: anything after a dot would be the extension."""
    parent, slash, last = name.strip("/").rpartition("/")
    return f"{parent}{slash}{last.replace('.', '_')}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file; return where it ends."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    return tar.offset
