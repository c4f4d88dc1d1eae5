"""Simulated speakers whose embeddings vary like those of real ones, and the exact search among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from speechbrain_bccmt.scoring.vectors import unit_length

SIZE, SEED = 192, 1986
NAMES_PER_CHUNK = 50_000
N_BEST = 10


class Population:
    """Simulated speakers, and their recordings.

    Parameters
    ----------
    like : Path or None
        File of embeddings whose covariances to use.
    """

    def __init__(self, like: Path | None):
        self.mean, self.between, self.within = np.zeros(SIZE, np.float32), None, np.float32(0.3)
        if like is None:
            return
        stored = np.load(like)
        vectors = unit_length(stored["embeddings"]).astype(np.float64)
        corpora, files = zip(*(name.split("/wav/") for name in stored["ids"]), strict=True)
        names = [f"{corpus} {file.split('/')[0]}" for corpus, file in zip(corpora, files, strict=True)]
        _, owners, counts = np.unique(names, return_inverse=True, return_counts=True)
        means = np.zeros((len(counts), SIZE))
        np.add.at(means, owners, vectors)
        means /= counts[:, None]
        rest, several = vectors - means[owners], means[counts > 1]
        within = rest.T @ rest / (len(vectors) - len(counts))
        between = np.cov(several.T) - within * np.mean(1 / counts[counts > 1])
        self.mean = several.mean(0).astype(np.float32)
        self.between, self.within = _root(between), _root(within)

    def _speakers(self, first: int, number: int) -> np.ndarray:
        draws = np.random.default_rng((SEED, first)).standard_normal((number, SIZE), dtype=np.float32)
        return self.mean + (draws if self.between is None else draws @ self.between)

    def recordings(self, first: int, number: int, take: int) -> np.ndarray:
        """Return one recording of each of `number` speakers, (number, SIZE)."""
        draws = np.random.default_rng((SEED, first, take)).standard_normal((number, SIZE), dtype=np.float32)
        return self._speakers(first, number) + (
            draws @ self.within if self.within.ndim else self.within * draws
        )


def _root(covariance: np.ndarray) -> np.ndarray:
    values, axes = np.linalg.eigh(covariance)
    return (np.sqrt(values.clip(0))[:, None] * axes.T).astype(np.float32)


def chunks(names: int):
    """Yield the first and the number of names of each chunk."""
    for first in range(0, names, NAMES_PER_CHUNK):
        yield first, min(NAMES_PER_CHUNK, names - first)


def exact_best(population: Population, names: int, probes: np.ndarray) -> np.ndarray:
    """Return the N_BEST names of the exact product for each probe, (p, N_BEST)."""
    scores, places = np.empty((len(probes), 0), np.float32), np.empty((len(probes), 0), np.int64)
    for first, number in chunks(names):
        product = probes @ unit_length(population.recordings(first, number, 0)).T
        scores = np.concatenate([scores, product], axis=1)
        found = np.broadcast_to(np.arange(first, first + number), product.shape)
        places = np.concatenate([places, found], axis=1)
        best = np.argsort(-scores, axis=1)[:, :N_BEST]
        scores, places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)
    return places
