"""Cosine scores against one product a trial."""

import time

import numpy as np
import pytest
import torch

from speechbrain_bccmt.scoring import cosine as module
from speechbrain_bccmt.scoring import cosine_scores


def make_trials(n_embeddings, size, n_trials, seed=0):
    generator = np.random.default_rng(seed)
    embeddings = generator.normal(size=(n_embeddings, size)) * generator.uniform(0.01, 100, (n_embeddings, 1))
    return embeddings, *generator.integers(0, n_embeddings, (2, n_trials))


def test_against_one_product_a_trial(monkeypatch):
    monkeypatch.setattr(module, "TRIALS_PER_BLOCK", 7)
    embeddings, enrol, test = make_trials(23, 16, 100)
    expected = [
        a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        for a, b in zip(embeddings[enrol], embeddings[test], strict=True)
    ]
    scores = cosine_scores(embeddings, enrol, test)
    assert scores.dtype == np.float32
    assert np.allclose(scores, expected, atol=1e-6)
    assert np.allclose(
        cosine_scores(*(torch.tensor(x) for x in (embeddings, enrol, test))), expected, atol=1e-6
    )


def test_range_and_extreme_lengths():
    embeddings, _, _ = make_trials(50, 192, 1)
    rows = np.arange(50)
    assert np.abs(cosine_scores(embeddings, rows, rows) - 1).max() < 1e-6
    assert cosine_scores(embeddings, rows, rows).max() <= 1
    assert cosine_scores([[1e30, 1e30], [1e-30, 1e-30]], [0], [1]) == pytest.approx(1)
    assert cosine_scores(embeddings, [], []).shape == (0,)


def test_refusals():
    embeddings = np.eye(3)
    for broken, number in (([0, 0, 0], 1), ([np.nan, 0, 0], 1), ([np.inf, 0, 0], 1)):
        wrong = embeddings.copy()
        wrong[number] = broken
        with pytest.raises(ValueError, match="1 of 3 embeddings are zero, NaN or infinite, first number 1"):
            cosine_scores(wrong, [0], [1])
    for enrol, test, message in (
        ([3], [0], "utterances 3 to 3, but there are 3 embeddings"),
        ([0], [-1], "test points at utterances -1"),
        ([0, 1], [0], "enrol has 2 trials and test 1"),
        ([0.0], [1.0], "expected integers"),
        ([[0]], [[1]], "expected integers"),
    ):
        with pytest.raises(ValueError, match=message):
            cosine_scores(embeddings, enrol, test)
    with pytest.raises(ValueError, match="expected \\(number, size\\)"):
        cosine_scores(np.ones(3), [0], [0])


def test_319_000_trials_take_seconds():
    embeddings, enrol, test = make_trials(5000, 192, 319_000)
    start = time.perf_counter()
    cosine_scores(embeddings, enrol, test)
    assert time.perf_counter() - start < 10
