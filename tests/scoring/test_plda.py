"""PLDA against multivariate normal densities, against SpeechBrain, and against the model that made the data."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from speechbrain_bccmt.scoring import cosine_scores, equal_error_rate, plda
from speechbrain_bccmt.scoring.plda import PLDA
from speechbrain_bccmt.scoring.plda_training import two_covariances


def random_covariance(generator, size, floor=0.1):
    root = generator.normal(size=(size, size))
    return root @ root.T / size + floor * np.eye(size)


def random_plda(size=6, reduced=4, seed=0, rank=None):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(reduced, rank or reduced))
    return PLDA(
        generator.normal(size=size),
        generator.normal(size=(size, reduced)),
        generator.normal(size=reduced),
        root @ root.T,
        random_covariance(generator, reduced),
    )


def corpus(n_speakers, least, most, size=10, seed=0):
    """Speakers drawn from known covariances; the numbers of utterances differ."""
    generator = np.random.default_rng(seed)
    within, between = random_covariance(generator, size), random_covariance(generator, size)
    speakers = np.repeat(np.arange(n_speakers), generator.integers(least, most + 1, n_speakers))
    means = generator.multivariate_normal(np.full(size, 3.0), between, n_speakers)
    noise = generator.multivariate_normal(np.zeros(size), within, len(speakers))
    return means[speakers] + noise, speakers, between, within


def log_density(model, utterances):
    """Log-density of utterances of one speaker: their joint normal distribution, written out."""
    number = len(utterances)
    covariance = np.kron(np.ones((number, number)), model.between)
    covariance += np.kron(np.eye(number), model.within)
    return multivariate_normal(np.tile(model.centre, number), covariance).logpdf(np.concatenate(utterances))


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("block", [1, 3, 16384])
def test_ratios_are_those_of_normal_densities(monkeypatch, rank, block):
    monkeypatch.setattr(plda, "TRIALS_PER_BLOCK", block)
    model, generator = random_plda(rank=rank), np.random.default_rng(1)
    embeddings = generator.normal(size=(12, 6))
    enrol, test = generator.integers(0, 12, (2, 40))
    z = model.transform(embeddings)
    expected = [
        log_density(model, [z[e], z[t]]) - log_density(model, [z[e]]) - log_density(model, [z[t]])
        for e, t in zip(enrol, test, strict=True)
    ]
    scores = model.scores(embeddings, enrol, test)
    assert scores == pytest.approx(np.array(expected), abs=1e-9)
    assert model.scores(torch.tensor(embeddings), test, torch.tensor(enrol)) == pytest.approx(
        scores, abs=1e-9
    )


def test_several_enrolment_utterances():
    model, generator = random_plda(), np.random.default_rng(1)
    embeddings = generator.normal(size=(12, 6))
    models = [[0, 1, 2], [3], [4, 5], (6, 7, 8), np.array([0, 0, 9, 10])]
    enrol, test = np.repeat(np.arange(5), 12), np.tile(np.arange(12), 5)
    z = model.transform(embeddings)
    expected = [
        log_density(model, [*z[list(models[e])], z[t]])
        - log_density(model, z[list(models[e])])
        - log_density(model, [z[t]])
        for e, t in zip(enrol, test, strict=True)
    ]
    exact = model.scores(embeddings, enrol, test, models, enrolment="by_the_book")
    assert exact == pytest.approx(np.array(expected), abs=1e-9)
    # Averaged: a model is one utterance, that of the mean's direction.
    averaged = model.scores(embeddings, enrol, test, models)
    for number, utterances in enumerate(models):
        mean = z[list(utterances)].mean(axis=0)
        mean *= 2 / np.linalg.norm(mean)  # sqrt(4), as all utterances have
        for t in range(12):
            ratio = log_density(model, [mean, z[t]]) - log_density(model, [mean]) - log_density(model, [z[t]])
            assert averaged[12 * number + t] == pytest.approx(ratio, abs=1e-9)
    single = model.scores(embeddings, [1, 1], [0, 5], models)
    assert single == pytest.approx(model.scores(embeddings, [3, 3], [0, 5]), abs=1e-12)


def test_scores_are_those_of_speechbrain():
    from speechbrain.processing.PLDA_LDA import Ndx, StatObject_SB, fast_PLDA_scoring

    model = random_plda()
    embeddings = np.random.default_rng(2).normal(size=(9, 6))
    rows = model.transform(embeddings)
    names = np.array([f"u{n}" for n in range(9)], dtype=object)
    nothing = np.full(9, None)
    statistics = StatObject_SB(names, names, nothing, nothing, np.ones((9, 1)), rows)
    factors = np.linalg.cholesky(model.between)
    ndx = Ndx(models=names, testsegs=names)
    matrix = fast_PLDA_scoring(statistics, statistics, ndx, model.centre, factors, model.within).scoremat
    enrol, test = np.indices((9, 9)).reshape(2, -1)
    assert model.scores(embeddings, enrol, test) == pytest.approx(matrix.ravel(), abs=1e-9)


def test_lda_is_that_of_scikit_learn():
    embeddings, speakers, _, _ = corpus(30, 2, 9)
    model = PLDA.fit(embeddings, speakers, lda_dim=4)
    reference = (
        LinearDiscriminantAnalysis(solver="svd", n_components=4).fit(embeddings, speakers).scalings_[:, :4]
    )
    # The same subspace: each direction of one is a combination of the other's.
    rest = model.projection - reference @ np.linalg.lstsq(reference, model.projection, rcond=None)[0]
    assert np.abs(rest).max() < 1e-5 * np.abs(model.projection).max()


def test_the_covariances_are_those_of_highest_likelihood():
    size = 6
    rows, speakers, between, within = corpus(300, 2, 6, size)
    counts = np.bincount(speakers)
    fitted = two_covariances(rows, speakers, counts, 50)

    def likelihood(centre, between, within):
        """Sum all speakers' joint densities, those with as many utterances at once."""
        total = 0.0
        for count in np.unique(counts):
            covariance = np.kron(np.ones((count, count)), between) + np.kron(np.eye(count), within)
            joint = rows[np.isin(speakers, np.flatnonzero(counts == count))].reshape(-1, count * size)
            total += multivariate_normal(np.tile(centre, count), covariance).logpdf(joint).sum()
        return total

    best = likelihood(*fitted)
    assert best > likelihood(np.full(size, 3.0), between, within)
    generator = np.random.default_rng(0)
    for _ in range(5):
        turn = 0.01 * generator.normal(size=(size, size))
        for part in (1, 2):
            for sign in (-1, 1):
                changed = list(fitted)
                root = np.eye(size) + sign * turn
                changed[part] = root @ changed[part] @ root.T
                assert likelihood(*changed) < best


def test_it_finds_speakers_better_than_cosine():
    embeddings, speakers, _, _ = corpus(400, 6, 6, size=24)
    known, others = speakers < 300, np.flatnonzero(speakers >= 300)
    model = PLDA.fit(embeddings[known], speakers[known], lda_dim=20, fitted_on="known")
    generator = np.random.default_rng(0)
    enrol, test = generator.choice(others, (2, 60000))
    enrol, test = enrol[enrol != test], test[enrol != test]
    target = speakers[enrol] == speakers[test]
    rates = [
        equal_error_rate(scores[target], scores[~target])[0]
        for scores in (
            model.scores(embeddings, enrol, test),
            cosine_scores(embeddings - embeddings[known].mean(axis=0), enrol, test),
        )
    ]
    assert rates[0] < 0.7 * rates[1]


@pytest.mark.parametrize("lda_dim", [6, None])
def test_names_order_and_dead_dimensions_do_not_matter(lda_dim):
    embeddings, speakers, _, _ = corpus(30, 2, 9)
    model = PLDA.fit(embeddings, speakers, lda_dim)
    order = np.random.default_rng(0).permutation(len(speakers))
    other = np.insert(embeddings, 3, 0.0, axis=1)
    other = np.column_stack([other, other[:, 0] * 2])
    same = PLDA.fit(torch.tensor(other[order]), [f"s{speakers[n]:02d}" for n in order], lda_dim)
    enrol, test = np.arange(20), np.arange(20, 40)
    assert same.scores(other, enrol, test) == pytest.approx(model.scores(embeddings, enrol, test), abs=1e-3)
    assert (model.n_speakers, model.n_utterances) == (30, len(speakers))


def test_copies_of_utterances_and_one_utterance_of_most():
    generator = np.random.default_rng(0)
    speakers = np.concatenate([np.arange(50), np.arange(15)])
    embeddings = generator.normal(size=(50, 8))[speakers] + 0.1 * generator.normal(size=(65, 8))
    assert np.isfinite(PLDA.fit(embeddings, speakers).scores(embeddings, [0], [1])).all()
    with pytest.raises(ValueError, match="utterances of each speaker do not differ"):
        PLDA.fit(embeddings[:50][speakers], speakers)


def test_round_trip(tmp_path):
    embeddings, speakers, _, _ = corpus(30, 2, 9)
    model = PLDA.fit(embeddings, speakers, lda_dim=6, fitted_on="thirty")
    path = tmp_path / "new" / "model.plda"
    model.save(path)
    model.save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    loaded = PLDA.load(path)
    trials = np.arange(10), np.arange(10, 20)
    assert np.array_equal(loaded.scores(embeddings, *trials), model.scores(embeddings, *trials))
    assert (loaded.fitted_on, loaded.n_speakers, loaded.n_utterances) == ("thirty", 30, len(embeddings))


def test_damaged_files(tmp_path):
    path = tmp_path / "plda.npz"
    random_plda().save(path)
    whole = path.read_bytes()
    for content in (b"", whole[:-100], whole[:300], b"text", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="plda.npz is no PLDA"):
            PLDA.load(path)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(ValueError, match="expected an npz with format"):
        PLDA.load(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(ValueError, match="is no PLDA"):
        PLDA.load(path.with_suffix(".npy"))
    random_plda().save(path)
    with np.load(path) as content:
        parts = dict(content)
    for changes, message in (
        ({"mean": parts["mean"].astype(object)}, "is no PLDA, .*allow_pickle=False"),  # would run code
        ({"version": 2}, "of version 2"),
        ({"mean": np.zeros(3)}, "mean of the PLDA has shape"),
        ({"centre": np.full(4, np.nan)}, "centre of the PLDA holds NaN"),
        ({"within": np.zeros((4, 4))}, "not positive definite"),
        ({"more": 1}, "more"),
    ):
        np.savez(path, **(parts | changes))
        with pytest.raises(ValueError, match=message) as caught:
            PLDA.load(path)
        assert str(path) in str(caught.value)
    del parts["within"]
    np.savez(path, **parts)
    with pytest.raises(ValueError, match="within"):
        PLDA.load(path)
    with pytest.raises(FileNotFoundError):
        PLDA.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, s: (x, s[1:]), "99 speakers for 100 embeddings"),
        (lambda x, s: (x[:10], s[:10]), "at least 2 speakers, there are 1"),
        (lambda x, s: (x[::10], s[::10]), "each of the 10 speakers has one utterance"),
        (lambda x, s: (x[:0], s[:0]), "there are 0"),
        (lambda x, s: (x[0], s), r"shape \(8,\), expected"),
        (lambda x, s: (np.where(x == x[4, 2], np.nan, x), s), "1 of 100 .* infinite, first number 4"),
        (lambda x, s: (x[6:14], s[6:14]), "8 utterances of 2 speakers are too few"),
        (lambda x, s: (x[:, :1], s), "vary in 1 dimensions only"),
        (lambda x, s: (0 * x, s), "vary in 0 dimensions only"),
        (lambda x, s: (x, s, 9), "lda_dim is 9, expected from 2 to 8"),
        (lambda x, s: (x[:50], s[:50], 5), "lda_dim is 5, expected from 2 to 4: .* 5 speakers span 4"),
        (lambda x, s: (x, s, 1), "lda_dim is 1"),
        (lambda x, s: (x, s, 4, 0), "n_iterations is 0"),
    ],
)
def test_refused_for_fitting(change, message):
    embeddings = np.random.default_rng(0).normal(size=(100, 8))
    with pytest.raises(ValueError, match=message):
        PLDA.fit(*change(embeddings, np.repeat(np.arange(10), 10)))


def test_refused_for_scoring():
    model, embeddings = random_plda(), np.random.default_rng(0).normal(size=(5, 6))
    with pytest.raises(ValueError, match="size 5, the PLDA was fitted on size 6"):
        model.scores(embeddings[:, :5], [0], [1])
    with pytest.raises(ValueError, match="test points at utterances 5 to 5"):
        model.scores(embeddings, [0], [5])
    with pytest.raises(ValueError, match="enrol points at models 3 to 3, but there are 2 models"):
        model.scores(embeddings, [3], [0], [[0], [1]])
    with pytest.raises(ValueError, match="model number 1 has utterances of shape"):
        model.scores(embeddings, [0], [0], [[0], []])
    with pytest.raises(ValueError, match="points at utterances 9 to 9"):
        model.scores(embeddings, [0], [0], [[0], [9]])
    with pytest.raises(
        ValueError, match="enrolment is 'n_best_mean', expected one of mean_embedding, by_the"
    ):
        model.scores(embeddings, [0], [0], [[0]], "n_best_mean")
    with pytest.raises(ValueError, match="1 of 5 embeddings have no direction.*first number 2"):
        model.scores(np.where(np.arange(5)[:, None] == 2, model.mean, embeddings), [0], [1])
    assert model.scores(embeddings, [], []).shape == (0,)


def test_a_million_trials_take_seconds():
    model, generator = random_plda(192, 128), np.random.default_rng(0)
    embeddings = generator.normal(size=(5000, 192))
    start = time.process_time()  # of the processor, as the machine may have other work
    model.scores(embeddings, *generator.integers(0, 5000, (2, 1_000_000)))
    assert time.process_time() - start < 10
