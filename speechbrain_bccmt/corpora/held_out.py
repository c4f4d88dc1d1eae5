"""What the preparations of all corpora share: when earlier files still hold, and who is held out."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from speechbrain_bccmt.corpora.layout import AudioFile


def digest_inputs(options: object, lists: Sequence[str | Path], found: Mapping[str, AudioFile]) -> str:
    """Digest what the files written depend on.

    Parameters
    ----------
    options : object
        Whatever the outputs depend on besides files; JSON must be able to hold it.
    lists : sequence of str or Path
        Files whose contents count.
    found : mapping of str to AudioFile
        Utterance id to its file, of which path, size and time count.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(json.dumps(options, sort_keys=True).encode(), digest_size=16)
    for path in lists:
        digest.update(hashlib.blake2b(Path(path).read_bytes()).digest())
    digest.update(
        "\n".join([f"{u}\t{path}\t{size}\t{time}" for u, (path, size, time) in found.items()]).encode()
    )
    return digest.hexdigest()


def earlier_result(manifest: Path, expected: str) -> dict | None:
    """Return what an earlier run noted as its result, where its inputs were the same and its files are untouched.

    Parameters
    ----------
    manifest : Path
        The file that the run wrote last: JSON with `fingerprint`, `sizes` (path to bytes) and `result`.
    expected : str
        Of today's inputs, by `digest_inputs`.

    Returns
    -------
    dict or None
        The `result`; None where the files must be written anew.
    """
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        sizes = {path: os.stat(path).st_size for path in content["sizes"]}
        same = content["fingerprint"] == expected and content["sizes"] == sizes
        return dict(content["result"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def choose_held_out(eligible: Collection[str], speakers: Collection[str], count: int, seed: int) -> set[str]:
    """Choose speakers by a hash of their name, so that adding data does not deal all of them anew.

    Parameters
    ----------
    eligible : collection of str
        Speakers who can be in a target trial.
    speakers : collection of str
        All speakers; at least one must remain.
    count : int
        How many to hold out.
    seed : int
        Of the choice.

    Returns
    -------
    set of str
        The speakers held out of training.

    Raises
    ------
    ValueError
        Where there are too few speakers.

    Examples
    --------
    >>> len(choose_held_out(["a", "b", "c"], ["a", "b", "c", "d"], count=2, seed=1))
    2
    """
    ordered = sorted(eligible, key=lambda speaker: hashlib.blake2b(f"{seed}:{speaker}".encode()).digest())
    if count and (len(ordered) < count or len(speakers) <= count):
        raise ValueError(
            f"no training speaker remains: dev_speakers={count} are to be held out of the {len(speakers)} "
            f"speakers that the trial lists leave ({len(ordered)} with utterances enough for a target trial). "
            "Hold out fewer"
        )
    return set(ordered[:count])


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking all of torch for the sake of many small records."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
