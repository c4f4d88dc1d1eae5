"""What a store of voiceprints holds and returns.

Axes: u utterances, d size of an embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EnrolledSpeaker:
    """A name in a store: its utterances, their seconds, when the first and last were enrolled (UTC), and labels."""

    name: str
    utterances: int
    seconds: float
    first_enrolled: str
    last_enrolled: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """What is enrolled under a name: embeddings (u, d), their seconds (u,), labels ("": none), and bandwidths (u,).

    A bandwidth is the frequency in Hz up to which a recording holds sound; NaN if not known.
    """

    name: str
    embeddings: np.ndarray
    seconds: np.ndarray
    labels: tuple[str, ...]
    bandwidths: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """An enrolled speaker, and its cosine with a probe."""

    name: str
    score: float


@dataclass(frozen=True)
class Identification:
    """Who is talking: `speaker`, None if unknown, and the best `candidates`, highest score first.

    `margin` is how far the first score is above the second, infinite if there is no other name, and `threshold` is what
    the first had to reach.
    """

    speaker: str | None
    candidates: tuple[Candidate, ...]
    margin: float = math.inf
    threshold: float = math.nan


@dataclass(frozen=True)
class EnrolledUtterance:
    """An enrolled utterance: embedding (d,), seconds of speech, file, time of enrolment (UTC), label and bandwidth."""

    name: str
    embedding: np.ndarray
    seconds: float
    file: str = ""
    enrolled: str = ""
    label: str = ""
    bandwidth: float = math.nan
