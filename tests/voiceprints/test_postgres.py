"""Voiceprints in PostgreSQL: the index, several stores, other people's schemas, and a server that goes away."""

import threading

import numpy as np
import pytest

from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.voiceprints.stores import ONE, content, cosine, enroll_some, voices

psycopg = pytest.importorskip("psycopg", reason="no driver of PostgreSQL")


@pytest.fixture
def prints(schema):
    return Voiceprints(schema, ONE, "models/one")


def test_with_an_index_scores_stay_exact_and_later_changes_count(prints):
    embeddings = enroll_some(prints, 300)
    probes = embeddings[:20] + 0.3 * voices(20, seed=1)
    without = prints.identify(probes, 0.5, 3)
    prints.build_index()
    prints.build_index()  # is there already
    for one, other, probe in zip(without, prints.identify(probes, 0.5, 3), probes, strict=True):
        assert other.speaker == one.speaker
        for candidate in other.candidates:
            assert candidate.score == pytest.approx(cosine(probe, embeddings[int(candidate.name[1:])]), abs=1e-5)
    prints.enroll("new", probes[:1], [1.0])
    assert prints.identify(probes[:1], 0.9)[0].speaker == "new"
    prints.delete("new")
    prints.purge()
    assert prints.identify(probes[:1], 0.5)[0].speaker == "n0"
    assert len(prints.identify(probes[:1], 0.5, n_best=300)[0].candidates) == 300  # more than an index gives


def test_the_index_is_used(prints, monkeypatch):
    from speechbrain_bccmt.voiceprints.postgres import _Connection

    enroll_some(prints, 300)
    prints.build_index()
    plans, execute = [], _Connection.execute

    def explained(self, query, values=()):
        if "halfvec" in query and query.startswith("SELECT"):
            self.raw.execute("SET LOCAL enable_seqscan = off")  # so few are read faster without
            plans.append(str(execute(self, f"EXPLAIN {query}", values).fetchall()))
        return execute(self, query, values)

    monkeypatch.setattr(_Connection, "execute", explained)
    prints.identify(voices(1), 0.5)
    assert len(plans) == 1 and "direction_near" in plans[0]


def test_stores_of_one_database_are_apart(prints, server, schema):
    other = Voiceprints(f"{schema}x", "2" * 16)
    enroll_some(prints)
    other.enroll("Ada", voices(1, size=4), [1.0])
    assert len(prints.speakers()) == 8 and len(other.speakers()) == 1


def test_the_schema_of_another_program_is_left_as_it_is(prints, server):
    url = server[0]
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA theirs")
    theirs = Voiceprints(f"{url}&schema=theirs", ONE)
    for act in (lambda: enroll_some(theirs), theirs.speakers):
        with pytest.raises(ValueError, match="its schema theirs is no store of voiceprints"):
            act()


def test_a_store_of_a_later_version_is_refused(prints, server, schema):
    enroll_some(prints)
    name = schema.rpartition("=")[2]
    with psycopg.connect(server[0]) as connection:
        connection.execute(f"COMMENT ON SCHEMA {name} IS 'voiceprints of speechbrain_bccmt 99'")
    with pytest.raises(ValueError, match="version 99"):
        prints.speakers()


def test_no_server_and_no_password_in_messages():
    prints = Voiceprints("postgresql://me:s3cret@127.0.0.1:1/voices", ONE)
    for act in (prints.check, lambda: prints.enroll("a", voices(1), [1.0])):
        with pytest.raises(OSError, match=r"postgresql://me@127.0.0.1:1/voices: cannot be used") as caught:
            act()
        assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_connection_that_the_server_ended_is_made_again(prints, server):
    enroll_some(prints)
    with psycopg.connect(server[0], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
    assert prints.identify(voices(1), 0.9)[0].speaker == "n0"


def test_a_writer_that_keeps_the_store_is_named(prints, monkeypatch):
    enroll_some(prints)
    monkeypatch.setattr("speechbrain_bccmt.voiceprints.postgres.WAIT_SECONDS", 0.1)
    failures = []

    def enroll():
        try:
            prints.enroll("a", voices(1), [1.0])
        except OSError as error:
            failures.append(str(error))

    with prints._database.writing():
        thread = threading.Thread(target=enroll)
        thread.start()
        thread.join()
    assert len(failures) == 1 and "another program has been writing it for 0.1 s" in failures[0]
    enroll()
    assert len(prints.speakers()) == 9


def test_reading_while_reading(prints):
    embeddings = enroll_some(prints)
    for utterance in prints.utterances():
        assert prints.identify(utterance.embedding[None], 0.9)[0].speaker == utterance.name
    assert np.array_equal(embeddings.tobytes(), b"".join(row[1] for row in content(prints)[2]))
