"""Voiceprints: who is found, and what every kind of store survives."""

import contextlib
import multiprocessing
import signal
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from speechbrain_bccmt.voiceprints.names import check_name
from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.voiceprints.stores import ONE, OTHER, content, cosine, enroll_some, voices


def test_the_best_candidates_and_their_scores(prints):
    embeddings = enroll_some(prints, 50)
    probes = voices(7, seed=1) + embeddings[:7]
    for n_best in (1, 5, 50, 99):
        for probe, found in zip(probes, prints.identify(probes, 0.5, n_best), strict=True):
            scores = {f"n{i}": cosine(probe, embeddings[i]) for i in range(50)}
            expected = sorted(scores, key=scores.get, reverse=True)[:n_best]
            assert [candidate.name for candidate in found.candidates] == expected
            assert [candidate.score for candidate in found.candidates] == pytest.approx(
                [scores[name] for name in expected], abs=1e-5
            )
            assert found.speaker == (expected[0] if scores[expected[0]] >= 0.5 else None)


def test_several_utterances_count_as_their_mean(prints, monkeypatch):
    # A name's may lie in two reads.
    monkeypatch.setattr("speechbrain_bccmt.voiceprints.sqlite._ROWS_PER_READ", 3)
    takes = {name: voices(number, seed=number) * 10.0**number for number, name in enumerate("abcd", start=1)}
    for name in "dbac":
        assert prints.enroll(name, takes[name][:1], [1.0]) == 1
    for name in "bcd":
        assert prints.enroll(name, takes[name][1:], [1.0] * (len(takes[name]) - 1)) == len(takes[name]) - 1
    probe = voices(1, seed=9)[0]
    (found,) = prints.identify([probe], 0.0)
    for candidate in found.candidates:
        unit = takes[candidate.name] / np.linalg.norm(takes[candidate.name], axis=1, keepdims=True)
        assert candidate.score == pytest.approx(cosine(probe, unit.mean(axis=0)), abs=1e-5)


def test_threshold_belongs_to_the_speaker(prints):
    prints.enroll("a", [[1.0, 0.0]], [1.0])
    for threshold, expected in ((1.0, "a"), (1.0001, None), (-1.0, "a")):
        assert prints.identify([[2.0, 0.0]], threshold)[0].speaker == expected


def test_utterances_that_cancel_out_score_zero(prints):
    prints.enroll("a", [[1.0, 0.0], [-1.0, 0.0]], [1.0, 1.0])
    assert prints.identify([[1.0, 0.0]], 0.5)[0].candidates[0].score == 0


def test_update_delete_and_list(prints, place):
    assert prints.enroll("Ada", voices(2), [1.5, 2.0], ["a.wav", "b.wav"]) == 2
    assert prints.enroll("Grace", voices(1, seed=1), [4.0]) == 1
    ada, grace = prints.speakers()
    assert (ada.name, ada.utterances, ada.seconds) == ("Ada", 2, 3.5)
    assert ada.first_enrolled == ada.last_enrolled and ada.first_enrolled.endswith("+00:00")
    assert prints.enroll(" Ada ", voices(3), [1.0] * 3) == 1  # two of them are there
    assert prints.speakers()[0].utterances == 3
    assert prints.enroll("Ada", voices(3)[2:], [9.0], replace=True) == 1
    assert prints.speakers()[0].seconds == 9.0 and prints.speakers()[1] == grace
    listing = Voiceprints(place)  # needs no model
    assert [speaker.name for speaker in listing.speakers()] == ["Ada", "Grace"]
    assert listing.delete("Ada") == 1
    with pytest.raises(ValueError, match="no speaker 'Ada' is enrolled"):
        listing.delete("Ada")
    assert [found.speaker for found in prints.identify(voices(3)[2:], 0.9)] == [None]
    for act in (lambda: listing.enroll("a", voices(1), [1.0]), lambda: listing.identify(voices(1), 0.5)):
        with pytest.raises(ValueError, match="fingerprint of the model is needed"):
            act()


def test_deleted_prints_are_gone_from_the_files(prints, place, request):
    def traces():
        files = [place]
        if not isinstance(place, Path):
            import psycopg

            url, folder = request.getfixturevalue("server")
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CHECKPOINT")  # from memory to the files
            files = [file for file in folder.glob("base/**/*") if file.is_file()]
        unit = embedding / np.linalg.norm(embedding)
        return [file for file in files if any(one.tobytes() in file.read_bytes() for one in (embedding, unit))]

    embedding = voices(1, seed=4242)  # of no other test
    prints.enroll("Ada", embedding, [1.0])
    prints.enroll("Grace", voices(1, seed=1), [1.0])
    assert traces()
    prints.delete("Ada")
    prints.purge()
    assert not traces()
    assert prints.identify(embedding, 0.9)[0].candidates[0].name == "Grace"


def test_a_change_by_another_is_seen(prints, place):
    enroll_some(prints)
    probe = voices(1, seed=5)
    assert prints.identify(probe, 0.9)[0].speaker is None
    Voiceprints(place, ONE).enroll("new", probe, [1.0])
    assert prints.identify(probe, 0.9)[0].speaker == "new"
    Voiceprints(place).delete("new")
    assert prints.identify(probe, 0.9)[0].speaker is None


def test_prints_of_another_model_are_refused(prints, place):
    enroll_some(prints)
    before = content(prints)
    other = Voiceprints(place, OTHER, "models/other")
    for act in (lambda: other.enroll("a", voices(1), [1.0]), lambda: other.identify(voices(1), 0.5)):
        with pytest.raises(ValueError, match=rf"model {ONE} \(models/one\).*model {OTHER} \(models/other\)"):
            act()
    assert content(prints) == before
    for speaker in prints.speakers():
        prints.delete(speaker.name)
    assert prints.identify(voices(1), 0.5)[0].candidates == ()
    assert other.enroll("a", voices(1, size=4), [1.0]) == 1  # nobody was left
    with pytest.raises(ValueError, match=ONE):
        prints.identify(voices(1), 0.5)


@pytest.mark.parametrize(
    ("name", "embeddings", "seconds", "message"),
    [
        ("", voices(1), [1.0], "'' is no name"),
        ("  \t ", voices(1), [1.0], "no name"),
        ("two\nlines", voices(1), [1.0], "no name"),
        ("\udcff", voices(1), [1.0], "no name"),
        ("a", [[1.0, np.nan] * 8], [1.0], "zero, NaN or infinite"),
        ("a", np.zeros((1, 16)), [1.0], "zero, NaN or infinite"),
        ("a", voices(1)[0], [1.0], "shape"),
        ("a", np.zeros((0, 16)), [], "at least one"),
        ("a", voices(2), [1.0], "2 embeddings, 1 lengths"),
        ("a", voices(1, size=3), [1.0], "size 16, these have size 3"),
    ],
)
def test_what_cannot_be_enrolled_changes_nothing(prints, name, embeddings, seconds, message):
    enroll_some(prints)
    before = content(prints)
    with pytest.raises(ValueError, match=message):
        prints.enroll_many(
            [("good", voices(1, np.shape(embeddings)[-1]), [1.0], None), (name, embeddings, seconds, None)]
        )
    assert content(prints) == before


def test_a_mistake_begins_no_store(prints):
    with pytest.raises(ValueError):
        prints.enroll("", voices(1), [1.0])
    with pytest.raises(ValueError, match="nobody to enrol"):
        prints.enroll_many([])
    assert not prints.exists()


def test_questions_that_have_no_answer(prints):
    enroll_some(prints)
    for options, message in (
        ({"threshold": np.nan}, "threshold is nan"),
        ({"threshold": 0.5, "n_best": 0}, "n_best is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            prints.identify(voices(1), **options)
    with pytest.raises(ValueError, match="size 16, these have size 3"):
        prints.identify(voices(1, size=3), 0.5)


def test_names():
    for name in ("\u202eevil", "zero\u200bwidth", "Unknown", "a" * 201):
        with pytest.raises(ValueError, match="name"):
            check_name(name)
    assert check_name("Jose\u0301") == check_name(" José ")
    assert check_name("می\u200cخواهم") == "می\u200cخواهم"  # no control character
    assert check_name("O'Hara; DROP TABLE speaker") == "O'Hara; DROP TABLE speaker"


def test_names_and_files_of_any_kind(prints):
    assert prints.enroll('O\'Hara "x" %', voices(1), [1.0], ["caf\udce9.wav"]) == 1
    assert prints.speakers()[0].name == 'O\'Hara "x" %'


def write(place, who, number, start, done):
    """Enrol as a process of its own, and tell of each write after it."""
    prints, rng = Voiceprints(place, ONE), np.random.default_rng(ord(who))
    start.wait()
    for i in range(number):
        prints.enroll(f"{who}{i}", rng.normal(size=(3, 192)), [1.0] * 3)
        prints.enroll("common", rng.normal(size=(1, 192)), [1.0])
        done.value = i + 1


def start_writers(place, names, number):
    # A fork starts at once, as it has imported everything.
    fork = multiprocessing.get_context("fork")
    start = fork.Event()
    done = [fork.RawValue("i", 0) for _ in names]
    writers = [
        fork.Process(target=write, args=(place, who, number, start, count))
        for who, count in zip(names, done, strict=True)
    ]
    for writer in writers:
        writer.start()
    start.set()
    return writers, done


def test_two_writers_at_once_lose_nothing(prints, place):
    writers, _ = start_writers(place, "xy", 12)
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = {speaker.name: speaker.utterances for speaker in prints.speakers()}
    assert found == {f"{who}{i}": 3 for who in "xy" for i in range(12)} | {"common": 24}


@pytest.mark.parametrize("after", [1, 2, 5, 12])
def test_a_kill_in_mid_write_loses_no_more_than_that_write(prints, place, after):
    (writer,), (done,) = start_writers(place, "x", 100_000)
    deadline = time.monotonic() + 60
    while done.value < after and time.monotonic() < deadline:
        time.sleep(0.0003 * after)
    writer.kill()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    found = {speaker.name: speaker.utterances for speaker in prints.speakers()}
    common = found.pop("common")
    assert set(found.values()) == {3}
    assert done.value <= common <= len(found) <= done.value + 1
    if isinstance(place, Path):
        with contextlib.closing(sqlite3.connect(place)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert prints.enroll("after", voices(1, size=192), [1.0]) == 1


def test_threads_share_a_store(prints):
    embeddings = enroll_some(prints)
    failures = []

    def work(number):
        try:
            prints.enroll(f"t{number}", voices(1, seed=100 + number), [1.0])
            assert prints.identify(embeddings[number : number + 1], 0.99)[0].speaker == f"n{number}"
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(prints.speakers()) == 14


def test_a_label_is_one_line_of_text(prints):
    for label in ("two\nlines", " ", "x" * 300):
        with pytest.raises(ValueError, match="is no label"):
            prints.enroll("ada", [[1.0, 0.0]], [1.0], label=label)


def test_labels_and_the_reference_of_a_name(prints):
    assert prints.enroll("Ada", voices(2), [2.5, 1.0], label="headset") == 2
    prints.enroll("Ada", voices(1, seed=1), [1.5])
    prints.enroll("Bela", voices(1, seed=2), [1.5], label="phone")
    reference = prints.reference("Ada")
    assert reference.labels == ("headset", "headset", "") and reference.seconds.tolist() == [2.5, 1.0, 1.5]
    assert np.array_equal(reference.embeddings, np.concatenate([voices(2), voices(1, seed=1)]))
    assert [(one.name, one.labels) for one in prints.speakers()] == [("Ada", ("headset",)), ("Bela", ("phone",))]
    prints.delete("Bela")
    assert prints.reference("Bela") is None
