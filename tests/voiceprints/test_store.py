"""Voiceprints: who is found, and what a store survives."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from speechbrain_bccmt.voiceprints.names import check_name
from speechbrain_bccmt.voiceprints.store import Voiceprints

ONE, OTHER = "1111111111111111", "2222222222222222"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "voices of ünïcode.sqlite"


@pytest.fixture
def prints(path):
    return Voiceprints(path, ONE, "models/one")


def voices(number, size=16, seed=0):
    return np.random.default_rng(seed).normal(size=(number, size)).astype(np.float32)


def enroll_some(prints, number=8):
    embeddings = voices(number)
    prints.enroll_many((f"n{i}", embeddings[i : i + 1], [2.0], None) for i in range(number))
    return embeddings


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


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


def test_blocks_of_probes(prints, monkeypatch):
    embeddings = enroll_some(prints)
    monkeypatch.setattr("speechbrain_bccmt.voiceprints.store._SCORES_PER_BLOCK", 20)
    assert [found.speaker for found in prints.identify(embeddings, 0.99)] == [f"n{i}" for i in range(8)]


def test_several_utterances_count_as_their_mean(prints, monkeypatch):
    monkeypatch.setattr(
        "speechbrain_bccmt.voiceprints.store._ROWS_PER_READ", 3
    )  # a name's may lie in two reads
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


def test_update_delete_and_list(prints, path):
    assert prints.enroll("Ada", voices(2), [1.5, 2.0], ["a.wav", "b.wav"]) == 2
    assert prints.enroll("Grace", voices(1, seed=1), [4.0]) == 1
    ada, grace = prints.speakers()
    assert (ada.name, ada.utterances, ada.seconds) == ("Ada", 2, 3.5)
    assert ada.first_enrolled == ada.last_enrolled and ada.first_enrolled.endswith("+00:00")
    assert prints.enroll(" Ada ", voices(3), [1.0] * 3) == 1  # two of them are there
    assert prints.speakers()[0].utterances == 3
    assert prints.enroll("Ada", voices(3)[2:], [9.0], replace=True) == 1
    assert prints.speakers()[0].seconds == 9.0 and prints.speakers()[1] == grace
    listing = Voiceprints(path)  # needs no model
    assert [speaker.name for speaker in listing.speakers()] == ["Ada", "Grace"]
    assert listing.delete("Ada") == 1
    with pytest.raises(ValueError, match="no speaker 'Ada' is enrolled"):
        listing.delete("Ada")
    assert [found.speaker for found in prints.identify(voices(3)[2:], 0.9)] == [None]
    for act in (lambda: listing.enroll("a", voices(1), [1.0]), lambda: listing.identify(voices(1), 0.5)):
        with pytest.raises(ValueError, match="fingerprint of the model is needed"):
            act()


def test_deleted_prints_are_gone_from_the_file(prints, path):
    embedding = voices(1)
    prints.enroll("Ada", embedding, [1.0])
    prints.enroll("Grace", voices(1, seed=1), [1.0])
    assert embedding.tobytes() in path.read_bytes()
    prints.delete("Ada")
    assert embedding.tobytes() not in path.read_bytes()


def test_a_change_by_another_is_seen(prints, path):
    enroll_some(prints)
    probe = voices(1, seed=5)
    assert prints.identify(probe, 0.9)[0].speaker is None
    Voiceprints(path, ONE).enroll("new", probe, [1.0])
    assert prints.identify(probe, 0.9)[0].speaker == "new"
    Voiceprints(path).delete("new")
    assert prints.identify(probe, 0.9)[0].speaker is None
    path.unlink()
    Voiceprints(path, ONE).enroll("other file", probe, [1.0])
    assert [c.name for c in prints.identify(probe, 0.9)[0].candidates] == ["other file"]


def test_without_a_change_nothing_is_read_again(prints, monkeypatch):
    embeddings = enroll_some(prints)
    prints.identify(embeddings, 0.5)
    monkeypatch.setattr(Voiceprints, "_read_matrix", None)
    assert prints.identify(embeddings[2:3], 0.5)[0].speaker == "n2"


def test_prints_of_another_model_are_refused(prints, path):
    enroll_some(prints)
    before = path.read_bytes()
    other = Voiceprints(path, OTHER, "models/other")
    for act in (lambda: other.enroll("a", voices(1), [1.0]), lambda: other.identify(voices(1), 0.5)):
        with pytest.raises(ValueError, match=rf"model {ONE} \(models/one\).*model {OTHER} \(models/other\)"):
            act()
    assert path.read_bytes() == before
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
def test_what_cannot_be_enrolled_changes_nothing(prints, path, name, embeddings, seconds, message):
    enroll_some(prints)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        prints.enroll_many(
            [("good", voices(1, np.shape(embeddings)[-1]), [1.0], None), (name, embeddings, seconds, None)]
        )
    assert path.read_bytes() == before


def test_a_mistake_begins_no_file(prints, path):
    with pytest.raises(ValueError):
        prints.enroll("", voices(1), [1.0])
    with pytest.raises(ValueError, match="nobody to enrol"):
        prints.enroll_many([])
    assert not path.exists()


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


def damaged(content):
    half = len(content) // 2
    return {
        "text": (b"no store", "not an SQLite file"),
        "short": (b"S", "not an SQLite file"),
        "audio": (b"RIFF" + bytes(5000), "not an SQLite file"),
        "header only": (content[:16], "damaged|no store"),
        "first page": (content[:100], "damaged|no store"),
        "truncated": (content[: len(content) // 4096 // 2 * 4096], "damaged|no store"),
        "zeros inside": (content[:4096] + bytes(len(content) - 4096), "damaged|no store"),
        "garbage inside": (content[:100] + b"\xa5" * (len(content) - 100), "damaged|no store"),
        "newer": (content[:60] + (99).to_bytes(4, "big") + content[64:], "version 99"),
        "half": (content[:half], "damaged|no store"),
    }


@pytest.mark.parametrize("kind", damaged(b"\0" * 9000))
def test_a_foreign_or_damaged_file_is_refused_and_left_as_it_is(prints, path, kind):
    prints.enroll_many((f"n{i}", row, [1.0], None) for i, row in enumerate(voices(200, size=192)[:, None]))
    content, message = damaged(path.read_bytes())[kind]
    path.write_bytes(content)
    for act in (
        lambda: prints.enroll("a", voices(1, size=192), [1.0]),
        lambda: prints.identify(voices(1, size=192), 0.5),
        lambda: [Voiceprints(path).speakers(), Voiceprints(path).delete("n199")],
    ):
        with pytest.raises((ValueError, OSError), match=message) as caught:
            act()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert path.read_bytes() == content
    assert sorted(os.listdir(path.parent)) == [path.name]


def test_the_sqlite_file_of_another_program_is_left_as_it_is(prints, path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE speaker (name TEXT)")
    connection.close()
    before = path.read_bytes()
    for act in (lambda: prints.enroll("a", voices(1), [1.0]), prints.speakers):
        with pytest.raises(ValueError, match="is an SQLite file, but no store"):
            act()
    assert path.read_bytes() == before


def test_missing_files_and_folders(prints, path, tmp_path):
    for act in (prints.speakers, lambda: prints.identify(voices(1), 0.5), lambda: prints.delete("a")):
        with pytest.raises(FileNotFoundError, match="there is no such store"):
            act()
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match="there is no folder .*gone"):
        Voiceprints(tmp_path / "gone" / "voices", ONE).enroll("a", voices(1), [1.0])
    with pytest.raises(IsADirectoryError):
        Voiceprints(tmp_path, ONE).speakers()
    path.touch()
    assert prints.speakers() == [] and prints.identify(voices(1), 0.5)[0].speaker is None
    assert path.stat().st_size == 0
    assert prints.enroll("a", voices(1), [1.0]) == 1


def test_a_writer_that_keeps_the_file_is_named(prints, path, monkeypatch):
    enroll_some(prints)
    monkeypatch.setattr("speechbrain_bccmt.voiceprints.sqlite.WAIT_SECONDS", 0.1)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(OSError, match="another program has been writing it for 0.1 s"):
        prints.enroll("a", voices(1), [1.0])
    assert len(prints.speakers()) == 8  # reading goes on
    connection.close()
    assert prints.enroll("a", voices(1), [1.0]) == 1


def write(path, who, number, start, done):
    """Enrol as a process of its own, and tell of each write after it."""
    prints, rng = Voiceprints(path, ONE), np.random.default_rng(ord(who))
    start.wait()
    for i in range(number):
        prints.enroll(f"{who}{i}", rng.normal(size=(3, 192)), [1.0] * 3)
        prints.enroll("common", rng.normal(size=(1, 192)), [1.0])
        done.value = i + 1


def start_writers(path, names, number):
    # A fork starts at once, as it has imported everything.
    fork = multiprocessing.get_context("fork")
    start = fork.Event()
    done = [fork.RawValue("i", 0) for _ in names]
    writers = [
        fork.Process(target=write, args=(path, who, number, start, count))
        for who, count in zip(names, done, strict=True)
    ]
    for writer in writers:
        writer.start()
    start.set()
    return writers, done


def test_two_writers_at_once_lose_nothing(prints, path):
    writers, _ = start_writers(path, "xy", 12)
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    found = {speaker.name: speaker.utterances for speaker in prints.speakers()}
    assert found == {f"{who}{i}": 3 for who in "xy" for i in range(12)} | {"common": 24}


@pytest.mark.parametrize("after", [1, 2, 5, 12])
def test_a_kill_in_mid_write_loses_no_more_than_that_write(prints, path, after):
    (writer,), (done,) = start_writers(path, "x", 100_000)
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
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert prints.enroll("after", voices(1, size=192), [1.0]) == 1


def test_a_write_that_stopped_half_way_is_undone(prints, path):
    """As a kill leaves it between the first page written to the file and the commit."""
    enroll_some(prints)
    before = prints.speakers()
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(path)!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # pages go to the file at once
connection.execute("BEGIN IMMEDIATE")
connection.execute("DELETE FROM speaker WHERE id < 5")
for i in range(500):
    connection.execute("INSERT INTO utterance VALUES (NULL, 6, randomblob(64), 1.0, '', '', '')")
os.kill(os.getpid(), 9)
"""
    intact = path.read_bytes()
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_bytes() != intact
    assert prints.speakers() == before
    assert [f.speaker for f in prints.identify(voices(8), 0.99)] == [f"n{i}" for i in range(8)]


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


OLD = """
CREATE TABLE model (fingerprint TEXT NOT NULL, source TEXT NOT NULL, size INTEGER NOT NULL, revision TEXT NOT NULL);
CREATE TABLE speaker (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE utterance (id INTEGER PRIMARY KEY, speaker INTEGER NOT NULL REFERENCES speaker (id),
    embedding BLOB NOT NULL, seconds REAL NOT NULL, file TEXT NOT NULL, enrolled TEXT NOT NULL);
CREATE INDEX utterance_of ON utterance (speaker);
PRAGMA application_id = 1650683252;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(path):
    """Write a file of version 1, which has no labels."""
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD)
        connection.execute("INSERT INTO model VALUES (?, '', 2, 'a')", (ONE,))
        connection.execute("INSERT INTO speaker VALUES (7, 'ada')")
        blob = np.array([3, 4], dtype="<f4").tobytes()
        connection.execute("INSERT INTO utterance VALUES (1, 7, ?, 2.5, 'a.wav', '2026-01-01')", (blob,))
    connection.close()
    return path


def test_older_files_are_read_as_they_are(old, prints):
    before = old.read_bytes()
    assert [(one.name, one.labels) for one in prints.speakers()] == [("ada", ())]
    reference = prints.reference("ada")
    assert reference.embeddings.tolist() == [[3, 4]] and reference.labels == ("",)
    assert prints.identify([[3.0, 4.0]], 0.5)[0].speaker == "ada"
    assert old.read_bytes() == before


def test_older_files_take_labels(old, prints):
    prints.enroll("ada", [[4.0, 3.0]], [1.5], label="headset")
    reference = prints.reference("ada")
    assert reference.labels == ("", "headset") and reference.seconds.tolist() == [2.5, 1.5]
    prints.enroll("bela", [[-4.0, 3.0]], [1.5], label="phone")
    assert [(one.name, one.labels) for one in prints.speakers()] == [("ada", ("headset",)), ("bela", ("phone",))]
    assert prints.delete("bela") == 1 and prints.reference("bela") is None
    with sqlite3.connect(old) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_label_is_one_line_of_text(prints):
    for label in ("two\nlines", " ", "x" * 300):
        with pytest.raises(ValueError, match="is no label"):
            prints.enroll("ada", [[1.0, 0.0]], [1.0], label=label)
