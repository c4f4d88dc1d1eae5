"""Cosine scores against one product a trial."""

import time

import numpy as np
import pytest
import torch

from speechbrain_bccmt.scoring import cosine as module
from speechbrain_bccmt.scoring import cosine_scores
from speechbrain_bccmt.scoring import enrolment as enrolments
from speechbrain_bccmt.trials.read import EnrolmentModel


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


@pytest.mark.parametrize("per_product", [1, 50, 10**6])
@pytest.mark.parametrize("dense", [True, False])
def test_products_and_gathering_agree(monkeypatch, per_product, dense):
    """A list of all pairs, shuffled, and one of a few: either way it is scored, the scores are the same."""
    monkeypatch.setattr(module, "TRIALS_PER_PRODUCT", per_product)
    monkeypatch.setattr(module, "PRODUCTS_PER_TRIAL", 1e9 if dense else 0)
    embeddings, _, _ = make_trials(30, 16, 1)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    generator = np.random.default_rng(1)
    for n_trials in (900, 20):
        pairs = generator.permutation(np.stack(np.divmod(np.arange(900), 30), axis=1))[:n_trials]
        expected = (units @ units.T)[pairs[:, 0], pairs[:, 1]]
        assert np.allclose(cosine_scores(embeddings, *pairs.T), expected, atol=1e-6)


def make_models(n_models=9, n_embeddings=40, seed=2):
    generator = np.random.default_rng(seed)
    return [
        tuple(generator.choice(n_embeddings, n, replace=False)) for n in generator.integers(1, 6, n_models)
    ]


def model_score(units, model, other, enrolment, n_best):
    """Score one model against one vector, straight from the definition."""
    if enrolment == "mean_embedding":
        mean = np.mean([units[row] for row in model], axis=0)
        return mean @ other / np.linalg.norm(mean)
    scores = sorted((float(units[row] @ other) for row in model), reverse=True)
    return np.mean(scores if enrolment == "mean_score" else scores[:n_best])


@pytest.mark.parametrize("scores_per_block", [1, 17, 4_000_000])
@pytest.mark.parametrize(
    ("enrolment", "n_best"),
    [("mean_embedding", 2), ("mean_score", 2), ("n_best_mean", 1), ("n_best_mean", 3), ("n_best_mean", 9)],
)
def test_models_against_their_definition(monkeypatch, enrolment, n_best, scores_per_block):
    monkeypatch.setattr(enrolments, "SCORES_PER_BLOCK", scores_per_block)
    embeddings, _, test = make_trials(40, 16, 200)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    models, enrol = make_models(), np.random.default_rng(3).integers(0, 9, 200)
    expected = [
        model_score(units, models[e], units[t], enrolment, n_best) for e, t in zip(enrol, test, strict=True)
    ]
    scores = cosine_scores(embeddings, enrol, test, models, enrolment, n_best)
    assert np.allclose(scores, expected, atol=1e-6)
    named = [EnrolmentModel(f"m{number}", model) for number, model in enumerate(models)]
    assert np.array_equal(cosine_scores(embeddings, enrol, test, named, enrolment, n_best), scores)


def test_models_of_one_utterance_are_plain_trials():
    embeddings, enrol, test = make_trials(40, 16, 200)
    models = [(row,) for row in range(40)]
    for enrolment in enrolments.ENROLMENTS:
        scores = cosine_scores(embeddings, enrol, test, models, enrolment)
        assert np.allclose(scores, cosine_scores(embeddings, enrol, test), atol=1e-6)


def test_refusals_of_models():
    for models, enrol, message in (
        ([], 0, "there are no enrolment models"),
        ([(0,), ()], 0, "model number 1 has utterances of shape"),
        ([(0.5,)], 0, "model number 0 has utterances of shape"),
        ([(0, 3)], 0, "model number 0 points at utterances 0 to 3, but there are 3 embeddings"),
        ([(-1,)], 0, "model number 0 points at utterances -1"),
        ([(0,)], 1, "enrol points at models 1 to 1, but there are 1 models"),
    ):
        with pytest.raises(ValueError, match=message):
            cosine_scores(np.eye(3), [enrol], [0], models)
    with pytest.raises(ValueError, match="enrolment is 'max', expected one of mean_embedding"):
        cosine_scores(np.eye(3), [0], [0], [(0,)], "max")
    with pytest.raises(ValueError, match="n_best is 0"):
        cosine_scores(np.eye(3), [0], [0], [(0,)], "n_best_mean", 0)
    with pytest.raises(ValueError, match="1 of 1 model's mean embeddings are zero"):
        cosine_scores([[1.0], [-1.0]], [0], [0], [(0, 1)])


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
