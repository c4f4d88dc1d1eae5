"""Voiceprints in an SQLite file: damage, strangers, kills, and the matrix in memory."""

import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from speechbrain_bccmt.voiceprints.records import EnrolledUtterance
from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.voiceprints.stores import ONE, enroll_some, voices


@pytest.fixture
def prints(path):
    return Voiceprints(path, ONE, "models/one")


def test_blocks_of_probes(prints, monkeypatch):
    embeddings = enroll_some(prints)
    monkeypatch.setattr("speechbrain_bccmt.voiceprints.sqlite._SCORES_PER_BLOCK", 20)
    assert [found.speaker for found in prints.identify(embeddings, 0.99)] == [f"n{i}" for i in range(8)]


def test_without_a_change_nothing_is_read_again(prints, monkeypatch):
    embeddings = enroll_some(prints)
    prints.identify(embeddings, 0.5)
    monkeypatch.setattr("speechbrain_bccmt.voiceprints.sqlite.VoicePrintFile._read_matrix", None)
    assert prints.identify(embeddings[2:3], 0.5)[0].speaker == "n2"


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
    connection.execute("INSERT INTO utterance VALUES (NULL, 6, randomblob(64), 1.0, '', '', '', NULL)")
os.kill(os.getpid(), 9)
"""
    intact = path.read_bytes()
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_bytes() != intact
    assert prints.speakers() == before
    assert [f.speaker for f in prints.identify(voices(8), 0.99)] == [f"n{i}" for i in range(8)]


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


def test_another_file_in_its_place_is_seen(prints, path):
    enroll_some(prints)
    assert prints.identify(voices(1), 0.9)[0].speaker == "n0"
    path.unlink()
    Voiceprints(path, ONE).enroll("other file", voices(1), [1.0])
    assert [c.name for c in prints.identify(voices(1), 0.9)[0].candidates] == ["other file"]


OLD = """
CREATE TABLE model (fingerprint TEXT NOT NULL, source TEXT NOT NULL, size INTEGER NOT NULL, revision TEXT NOT NULL);
CREATE TABLE speaker (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE utterance (
    id INTEGER PRIMARY KEY, speaker INTEGER NOT NULL REFERENCES speaker (id), embedding BLOB NOT NULL,
    seconds REAL NOT NULL, file TEXT NOT NULL, enrolled TEXT NOT NULL);
CREATE INDEX utterance_of ON utterance (speaker);
PRAGMA application_id = 1650683252;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(path):
    """Write a file of version 1, which has neither labels nor bandwidths."""
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
    assert np.isnan(reference.bandwidths).all()
    assert prints.identify([[3.0, 4.0]], 0.5)[0].speaker == "ada"
    assert old.read_bytes() == before


def test_older_files_take_what_is_new(old, prints):
    prints.enroll("ada", [[4.0, 3.0]], [1.5], label="headset")
    reference = prints.reference("ada")
    assert reference.labels == ("", "headset") and reference.seconds.tolist() == [2.5, 1.5]
    prints.add([EnrolledUtterance("ada", np.float32([1, 0]), 1.0, bandwidth=4000.0)])
    assert prints.reference("ada").bandwidths.tolist()[-1] == 4000
    prints.enroll("bela", [[-4.0, 3.0]], [1.5], label="phone")
    assert [(one.name, one.labels) for one in prints.speakers()] == [("ada", ("headset",)), ("bela", ("phone",))]
    assert prints.delete("bela") == 1 and prints.reference("bela") is None
    with sqlite3.connect(old) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
