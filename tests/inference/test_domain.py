"""What recordings have in common, found without knowing who speaks."""

import time

import numpy as np
import pytest

from speechbrain_bccmt.inference.domain import LEAST_VOICES, PRIOR_VOICES, find_domain


def recordings(voices, takes, seed=0, size=192):
    """Return embeddings of voices in one room, (sum of takes, size), and the room's shift."""
    rng = np.random.default_rng(seed)
    room, people = 0.4 * rng.normal(size=size), rng.normal(size=(voices, size))
    return np.repeat(people, takes, axis=0) + room + 0.1 * rng.normal(size=(sum(takes), size)), room


def test_the_centre_is_what_the_voices_have_in_common():
    embeddings, room = recordings(60, [1] * 60)
    domain = find_domain(embeddings, 0.6)
    assert (domain.voices, domain.recordings) == (60, 60)
    weight = 60 / (60 + PRIOR_VOICES)
    assert domain.centre == pytest.approx(weight * embeddings.mean(axis=0))
    left = embeddings - domain.centre
    assert np.linalg.norm(left.mean(axis=0)) < 0.25 * np.linalg.norm(embeddings.mean(axis=0))
    assert np.linalg.norm(domain.centre - weight * room) < 0.4 * np.linalg.norm(room)


def test_each_voice_counts_alike():
    once, _ = recordings(8, [1] * 8)
    often = np.concatenate([once, np.repeat(once[:1], 40, axis=0)])
    one, other = (find_domain(some, 0.9) for some in (once, often))
    assert other.voices == 8 and other.recordings == 48
    assert other.centre == pytest.approx(one.centre)


def test_the_order_and_the_size_of_embeddings_do_not_decide_who_is_who():
    embeddings, _ = recordings(10, [3] * 10)
    order = np.random.default_rng(1).permutation(len(embeddings))
    assert find_domain(embeddings[order], 0.8).voices == find_domain(7 * embeddings, 0.8).voices == 10


def test_thousands_of_recordings_take_moments():
    embeddings, _ = recordings(2000, [2] * 2000)
    started = time.process_time()
    assert find_domain(embeddings, 0.8).voices == 2000
    assert time.process_time() - started < 20


@pytest.mark.parametrize("voices", [1, LEAST_VOICES - 1])
def test_few_voices_are_refused(voices):
    embeddings, _ = recordings(voices, [6] * voices)
    with pytest.raises(ValueError, match=f"{6 * voices} recordings of {voices} voice"):
        find_domain(embeddings, 0.8)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_embedding_that_is_none_is_refused(value):
    embeddings, _ = recordings(6, [1] * 6)
    embeddings[3] = value
    with pytest.raises(ValueError, match="1 of 6 embeddings are zero, NaN or infinite, first number 3"):
        find_domain(embeddings, 0.8)
