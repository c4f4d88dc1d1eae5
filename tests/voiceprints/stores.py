"""What the tests of all stores share."""

import numpy as np

ONE, OTHER = "1111111111111111", "2222222222222222"


def voices(number, size=16, seed=0):
    return np.random.default_rng(seed).normal(size=(number, size)).astype(np.float32)


def enroll_some(prints, number=8):
    embeddings = voices(number)
    prints.enroll_many((f"n{i}", embeddings[i : i + 1], [2.0], None) for i in range(number))
    return embeddings


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def content(prints):
    """Return all that a store holds."""
    found = [
        (one.name, one.embedding.tobytes(), one.seconds, one.file, one.enrolled, one.label, repr(one.bandwidth))
        for one in prints.utterances()
    ]
    return prints.model(), prints.speakers(), found
