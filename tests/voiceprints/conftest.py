"""Stores to test: each test that asks for `place` or `prints` runs on every kind."""

import uuid

import pytest

from speechbrain_bccmt.voiceprints.store import Voiceprints
from tests.voiceprints.stores import ONE


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
