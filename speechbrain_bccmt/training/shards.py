"""Training from shards: where the utterances are, and an order that reads one shard after another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Sampler

from speechbrain_bccmt.audio.members import Member
from speechbrain_bccmt.corpora.shards import read_index


def place_in_shards(data: dict[str, dict], folder: str | Path) -> None:
    """Point the rows of the training utterances into shards: `wav` becomes a `Member`.

    Parameters
    ----------
    data : dict
        Rows of `train.csv` by id; changed in place.
    folder : str or Path
        The folder of the shards, which may hold more utterances.

    Raises
    ------
    OSError, ValueError
        If there are no shards, or an utterance is missing from them or does not match its row.
    """
    found = 0
    for name, member, frames, rate in read_index(folder):
        row = data.get(name)
        if row is None:
            continue
        if (int(row["stop"]) - int(row["start"]), int(row["sample_rate"])) != (frames, rate):
            raise ValueError(f"{folder}: utterance '{name}' was packed with another length: pack the shards again")
        row.update(wav=member, start="0", stop=str(frames))
        found += 1
    if found < len(data):
        lacking = next(name for name, row in data.items() if not isinstance(row["wav"], Member))
        raise ValueError(
            f"{folder}: {len(data) - found} of {len(data)} training utterances are not in the shards, such as "
            f"'{lacking}': pack them again"
        )


class ShardOrder(Sampler):
    """An order of the utterances that goes through the shards one by one and is random within a window.

    It differs in each epoch: the shards in random order, and a shuffle buffer over their utterances, which are packed
    in random order.

    Parameters
    ----------
    members : sequence of Member
        The utterances of the training set, in its order.
    buffer : int
        Number of utterances that the next one is drawn from.
    seed : int
        Seed of the order.
    streams : int
        Number of processes that the order is dealt to in turn: each gets shards of its own.

    Examples
    --------
    >>> members = [Member(f"{shard}.tar", offset, 1, "") for shard in "ab" for offset in range(4)]
    >>> order = ShardOrder(members, buffer=2, seed=0)
    >>> order.set_epoch(1)
    >>> drawn = list(order)
    >>> sorted(drawn) == list(range(8)), abs(sum(drawn[:4]) - sum(drawn[4:])) > 8
    (True, True)
    """

    def __init__(self, members: Sequence[Member], buffer: int, seed: int = 0, streams: int = 1):
        if buffer < 1:
            raise ValueError(f"shuffle_buffer is {buffer}, expected at least 1")
        self.buffer, self.seed, self.streams, self.epoch = buffer, seed, streams, 0
        shards: dict[str, list[tuple[int, int]]] = {}
        for index, member in enumerate(members):
            shards.setdefault(member.file, []).append((member.offset, index))
        self._shards = [[index for _, index in sorted(shards[file])] for file in sorted(shards)]

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self._shards), generator=generator).tolist()
        line = [index for shard in order for index in self._shards[shard]]
        cuts = [len(line) * part // self.streams for part in range(self.streams + 1)]
        # The longer ones first, so that taking turns leaves nobody out.
        parts = sorted((line[a:b] for a, b in itertools.pairwise(cuts)), key=len, reverse=True)
        shuffled = [self._shuffle(part, generator) for part in parts]
        for several in itertools.zip_longest(*shuffled):
            yield from (index for index in several if index is not None)

    def _shuffle(self, indices: list[int], generator: torch.Generator) -> Iterator[int]:
        draws = torch.rand(len(indices), generator=generator).tolist()
        window = indices[: self.buffer]
        for place, draw in enumerate(draws):
            chosen = int(draw * len(window))
            yield window[chosen]
            following = place + self.buffer
            if following < len(indices):
                window[chosen] = indices[following]
            else:
                window[chosen] = window[-1]
                window.pop()
