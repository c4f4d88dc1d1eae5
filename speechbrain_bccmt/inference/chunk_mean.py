"""The embedding of a recording from its chunks, with one chunk in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from speechbrain_bccmt.audio.levels import bandwidth
from speechbrain_bccmt.audio.recording import Chunk


def embed_chunks(
    chunks: Iterable[Chunk], embed: Callable[[np.ndarray], np.ndarray], rate: int
) -> tuple[np.ndarray, list[Chunk]]:
    """Embed a recording as the mean of its chunks' embeddings, weighted by length, without silent chunks.

    Parameters
    ----------
    chunks : iterable of Chunk
        Chunks of the recording, one or more; one at a time is in memory.
    embed : callable
        Maps a waveform (samples,) to its embedding (D,), an array of NumPy or PyTorch.
    rate : int
        Sample rate of the chunks in Hz.

    Returns
    -------
    embedding : numpy.ndarray or torch.Tensor
        (D,); for a silent recording, the first chunk's.
    chunks : list of Chunk
        The recording's chunks, without samples, with their bandwidth measured.
    """
    mean = ChunkMean(embed, rate)
    for chunk in chunks:
        mean.add(chunk)
    return mean.embedding(), mean.seen


class ChunkMean:
    """The embedding of a recording whose chunks arrive one by one; see `embed_chunks`.

    Attributes
    ----------
    seen : list of Chunk
        The chunks added so far, without samples.
    """

    def __init__(self, embed: Callable[[np.ndarray], np.ndarray], rate: int):
        self._embed, self._rate, self.seen = embed, rate, []
        self._total, self._weight, self._silent = 0, 0, None

    def add(self, chunk: Chunk) -> None:
        """Embed a chunk."""
        if chunk.audible_seconds:
            self._total, self._weight = self._with([chunk])
        elif self._silent is None:
            self._silent = self._embed(chunk.wav)
        self.seen.append(measure_band(chunk, self._rate))

    def embedding(self, also: Sequence[Chunk] = ()):
        """Return the embedding (D,) of all chunks and of further ones, with speech, which are not kept."""
        total, weight = self._with(also)
        return total / weight if weight else self._silent

    def _with(self, chunks: Sequence[Chunk]):
        total, weight = self._total, self._weight
        for chunk in chunks:
            total, weight = total + len(chunk.wav) * self._embed(chunk.wav), weight + len(chunk.wav)
        return total, weight


def measure_band(chunk: Chunk, rate: int) -> Chunk:
    """Return a chunk at `rate` in Hz with its bandwidth, and without its samples."""
    return replace(chunk, wav=np.empty(0, np.float32), bandwidth=bandwidth(chunk.wav, rate))
