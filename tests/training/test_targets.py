"""Targets that were stored before: what is looked up, and what does not fit."""

import numpy as np
import pytest
import torch

from speechbrain_bccmt.training.targets import StoredTargets


@pytest.fixture
def files(tmp_path):
    for speed in (100, 110):
        np.savez(
            tmp_path / f"{speed}.npz",
            ids=["a/1.wav", "a/2.wav", "b/1.wav"],
            embeddings=np.arange(12).reshape(3, 4) + speed,
            seconds=np.array([1.0, 2.0, 3.0]) * 100 / speed,
        )
    return {speed: tmp_path / f"{speed}.npz" for speed in (100, 110)}


def test_each_crop_gets_the_target_of_its_utterance_and_speed(files):
    targets = StoredTargets(files)
    targets.check({"a/1": 1.0, "b/1": 3.0}, [100, 110])
    found = targets(["b/1", "a/2", "b/1"], [100, 110, 110])
    assert found.shape == (3, 1, 4) and found[:, 0, 0].tolist() == [108.0, 114.0, 118.0]
    assert torch.equal(StoredTargets(files[100])(["a/1"]), targets(["a/1"], [100]))
    assert targets.bank.shape == (6, 4)


@pytest.mark.parametrize(
    ("seconds", "speeds", "message"),
    [
        ({"a/1": 1.0, "c/1": 1.0}, [100], "100.npz: 1 of 2 utterances have no embedding, such as c/1"),
        ({"a/1": 1.0}, [100, 90], "target_files has none for 90"),
        ({"a/1": 1.5}, [100], "the target of a/1 is of 1.00 s, but the utterance has 1.50 s"),
        ({"a/1": 1.1}, [110], "1.00 s at speed 110: the targets are of other audio"),
    ],
)
def test_what_does_not_fit_is_named(files, seconds, speeds, message):
    with pytest.raises(ValueError, match=message):
        StoredTargets(files).check(seconds, speeds)


def test_targets_of_two_teachers_are_refused(files, tmp_path):
    np.savez(tmp_path / "other.npz", ids=["a/1"], embeddings=np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"sizes \[4, 5\]"):
        StoredTargets({100: files[100], 90: tmp_path / "other.npz"})


def test_the_mean_of_each_corpus_is_taken_off(tmp_path):
    rng = np.random.default_rng(0)
    ids, vectors = [f"{name}/{n}" for name in "ab" for n in range(5)], rng.normal(size=(10, 4)).astype(np.float32)
    vectors[:5] += 3  # another channel
    for speed, shift in ((100, 0), (90, 1)):
        np.savez(tmp_path / f"{speed}.npz", ids=ids, embeddings=vectors + shift)
    targets = StoredTargets({speed: tmp_path / f"{speed}.npz" for speed in (100, 90)})
    targets.centre({name: name[0] == "a" for name in ids[:9]})  # the last is not trained on
    expected = vectors.copy()
    for part in (slice(0, 5), slice(5, 9)):
        expected[part] -= vectors[part].mean(axis=0)
    assert targets(ids)[:, 0].numpy() == pytest.approx(expected, abs=1e-6)
    # The voice at another speed keeps its difference from the original.
    assert targets(ids[:9], [90] * 9)[:, 0].numpy() == pytest.approx(expected[:9] + 1, abs=1e-6)
