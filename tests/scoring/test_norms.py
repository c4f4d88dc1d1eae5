"""Score normalisation against a loop over trials, as SpeechBrain's recipe does it."""

import time
from collections import Counter

import numpy as np
import pytest
import torch

from speechbrain_bccmt.scoring import cosine_scores, norms, s_norm, subtract_mean, t_norm, z_norm
from speechbrain_bccmt.scoring.cohorts import choose_cohort, speaker_means


def make_case(seed=0, n_embeddings=15, size=8, n_cohort=40, n_trials=60):
    generator = np.random.default_rng(seed)
    embeddings, cohort = generator.normal(size=(n_embeddings, size)), generator.normal(size=(n_cohort, size))
    enrol, test = generator.integers(0, n_embeddings, (2, n_trials))
    return cosine_scores(embeddings, enrol, test), embeddings, enrol, test, cohort


def loop_norm(scores, embeddings, enrol, test, cohort, top_n=None, norm="s"):
    """Normalise trial by trial with SpeechBrain's formulas (torch.topk, torch.std)."""
    similarity = torch.nn.CosineSimilarity(dim=-1)
    embeddings, cohort = torch.tensor(embeddings), torch.tensor(cohort)
    normalised = []
    for score, e, t in zip(scores, enrol, test, strict=True):
        sides = []
        for side in (e, t):
            of_cohort = similarity(embeddings[side].expand_as(cohort), cohort)
            if top_n is not None:
                of_cohort = torch.topk(of_cohort, k=top_n).values
            sides.append((float(score) - of_cohort.mean().item()) / of_cohort.std().item())
        normalised.append({"z": sides[0], "t": sides[1], "s": 0.5 * sum(sides)}[norm])
    return np.array(normalised)


@pytest.mark.parametrize("top_n", [None, 2, 10, 40])
@pytest.mark.parametrize("scores_per_block", [1, 100, 16_000_000])
def test_against_loop(monkeypatch, top_n, scores_per_block):
    monkeypatch.setattr(norms, "SCORES_PER_BLOCK", scores_per_block)
    monkeypatch.setattr(norms, "TRIALS_PER_BLOCK", 7)
    case = make_case()
    for norm, function in (("z", z_norm), ("t", t_norm), ("s", s_norm)):
        assert np.allclose(function(*case, top_n=top_n), loop_norm(*case, top_n=top_n, norm=norm), atol=1e-4)


@pytest.mark.parametrize("top_n", [None, 10])
@pytest.mark.parametrize("enrolment", ["mean_embedding", "mean_score", "n_best_mean"])
def test_models_against_their_definition(top_n, enrolment):
    """The cohort scores of a model are made as its trial scores are."""
    generator = np.random.default_rng(4)
    embeddings, cohort = generator.normal(size=(30, 8)), generator.normal(size=(40, 8))
    models = [(0, 1, 2), (3,), (4, 5), (6, 7, 8, 9)]
    enrol, test = generator.integers(0, 4, 50), generator.integers(10, 30, 50)
    scores = cosine_scores(embeddings, enrol, test, models, enrolment)
    everything = np.concatenate([embeddings, cohort])

    def statistics(of_cohort):
        highest = np.sort(of_cohort)[-(top_n or 40) :].astype(np.float64)
        return highest.mean(), highest.std(ddof=1)

    rows = np.arange(30, 70)
    of_models = [cosine_scores(everything, [m] * 40, rows, models, enrolment) for m in range(4)]
    expected = {"z": [], "t": []}
    for score, e, t in zip(scores, enrol, test, strict=True):
        for norm, of_cohort in (("z", of_models[e]), ("t", cosine_scores(everything, [t] * 40, rows))):
            mean, std = statistics(of_cohort)
            expected[norm].append((score - mean) / std)
    arguments = scores, embeddings, enrol, test, cohort, top_n, models, enrolment
    assert np.allclose(z_norm(*arguments), expected["z"], atol=1e-4)
    assert np.allclose(t_norm(*arguments), expected["t"], atol=1e-4)
    assert np.allclose(s_norm(*arguments), np.mean(list(expected.values()), axis=0), atol=1e-4)


def test_statistics_are_computed_once_for_each_utterance(monkeypatch):
    rows = []
    of_highest = norms._of_highest
    monkeypatch.setattr(
        norms, "_of_highest", lambda scores, n: rows.append(len(scores)) or of_highest(scores, n)
    )
    scores, embeddings, enrol, test, cohort = make_case()
    few = np.minimum(enrol, 3), np.minimum(test, 5)
    s_norm(scores, embeddings, *few, cohort, top_n=5)
    assert sum(rows) == len(np.union1d(*few)) < 15


def test_subtract_mean():
    generator = np.random.default_rng(0)
    embeddings, cohort = generator.normal(size=(5, 4)), generator.normal(size=(9, 4)) + 3
    expected = embeddings - cohort.mean(axis=0)
    assert np.allclose(subtract_mean(embeddings, cohort), expected, atol=1e-6)
    assert np.allclose(subtract_mean(torch.tensor(embeddings), torch.tensor(cohort)), expected, atol=1e-6)
    for wrong, message in (
        (cohort[:, :3], r"shape \(5, 4\) and the cohort \(9, 3\)"),
        (cohort[:0], "cohort of no embeddings"),
        (np.full((2, 4), np.nan), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            subtract_mean(embeddings, wrong)


def test_top_n_beyond_the_cohort_means_all():
    case = make_case()
    assert np.array_equal(s_norm(*case, top_n=1000), s_norm(*case))
    assert np.array_equal(s_norm(*(torch.tensor(part) for part in case)), s_norm(*case))


def test_it_undoes_a_shift_that_one_side_brings():
    """An utterance near to everybody scores high with all: the norm takes that away."""
    generator = np.random.default_rng(1)
    embeddings, cohort = generator.normal(size=(200, 32)), generator.normal(size=(300, 32)) + 1
    embeddings[:100] += 1.0
    enrol, test = np.arange(0, 100), np.arange(100, 200)
    scores = cosine_scores(embeddings, np.r_[enrol, test], np.r_[np.roll(enrol, 1), np.roll(test, 1)])
    normalised = s_norm(
        scores, embeddings, np.r_[enrol, test], np.r_[np.roll(enrol, 1), np.roll(test, 1)], cohort
    )
    raw_gap = (scores[:100].mean() - scores[100:].mean()) / scores.std()
    gap = (normalised[:100].mean() - normalised[100:].mean()) / normalised.std()
    assert raw_gap > 1.5 and abs(gap) < raw_gap / 2


def test_refusals():
    scores, embeddings, enrol, test, cohort = make_case()
    with pytest.raises(ValueError, match="top_n is 1, expected at least 2"):
        s_norm(scores, embeddings, enrol, test, cohort, top_n=1)
    with pytest.raises(ValueError, match="cohort of 1 has no standard deviation"):
        s_norm(scores, embeddings, enrol, test, cohort[:1])
    with pytest.raises(ValueError, match="same score with all"):
        s_norm(scores, embeddings, enrol, test, np.repeat(cohort[:1], 5, axis=0))
    with pytest.raises(ValueError, match="cohort's embeddings have size 7, the trials' 8"):
        s_norm(scores, embeddings, enrol, test, cohort[:, :7])
    with pytest.raises(ValueError, match="1 of 40 cohort embeddings are zero"):
        s_norm(scores, embeddings, enrol, test, np.r_[cohort[:39], np.zeros((1, 8))])
    with pytest.raises(ValueError, match="expected one a trial"):
        s_norm(scores[1:], embeddings, enrol, test, cohort)


def test_choose_cohort():
    rows = [{"ID": f"{speaker}-{n}", "spk_id": f"s{speaker}"} for n in range(9) for speaker in range(20)]
    chosen = choose_cohort(rows, speakers=5, utterances=3, seed=1)
    assert sorted(Counter(row["spk_id"] for row in chosen).values()) == [3] * 5
    assert chosen == choose_cohort(rows, speakers=5, utterances=3, seed=1)
    assert chosen != choose_cohort(rows, speakers=5, utterances=3, seed=2)
    assert choose_cohort(rows) == rows == choose_cohort(rows, speakers=100, utterances=100)
    with pytest.raises(ValueError, match="cohort of 0 speakers"):
        choose_cohort(rows, speakers=0)


def test_speaker_means():
    generator = np.random.default_rng(0)
    embeddings, speakers = generator.normal(size=(12, 4)), list("cabcabcabcab")
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = [units[[s == name for s in speakers]].mean(axis=0) for name in "abc"]
    assert np.allclose(speaker_means(embeddings, speakers), expected, atol=1e-6)
    with pytest.raises(ValueError, match="11 speakers for 12 embeddings"):
        speaker_means(embeddings, speakers[1:])


def test_319_000_trials_take_seconds():
    generator = np.random.default_rng(0)
    embeddings, cohort = generator.normal(size=(5000, 192)), generator.normal(size=(1200, 192))
    enrol, test = generator.integers(0, 5000, (2, 319_000))
    start = time.perf_counter()
    s_norm(np.zeros(319_000), embeddings, enrol, test, cohort, top_n=300)
    assert time.perf_counter() - start < 10
