"""Detecting more than one voice in a recording, by windows of speech that do not match each other."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechbrain_bccmt.audio import speech
from speechbrain_bccmt.audio.hum import remove_hum
from speechbrain_bccmt.audio.levels import bandwidth
from speechbrain_bccmt.audio.recording import Recording
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.scoring.vectors import side_direction, unit_length

if TYPE_CHECKING:
    from speechbrain_bccmt.inference.verifier import Verifier

# Speech is cut into windows of about this length; less than the least says too little about a voice.
WINDOW_SECONDS, LEAST_SECONDS = 2.0, 1.0
# Two groups are two voices below this log-likelihood ratio.
THRESHOLD = -1.0
_ROUNDS = 20


@dataclass(frozen=True)
class VoiceCheck:
    """Whether the speech of a recording is of one voice.

    Attributes
    ----------
    llr : float
        Calibrated log-likelihood ratio of "one voice" and "two", for the two groups of windows that differ most; NaN
        if there is too little speech to tell.
    times : tuple of (float, float)
        Where the rarer voice was found, in seconds of the recording; empty if there is one voice.
    """

    llr: float
    times: tuple[tuple[float, float], ...] = ()

    @property
    def places(self) -> str | None:
        """Where the second voice is, in words; None if there is one voice."""
        if not self.times:
            return None
        places = ", ".join(f"{start:.1f} to {stop:.1f} s" for start, stop in self.times[:3])
        return places + (f" and {len(self.times) - 3} more" if len(self.times) > 3 else "")


def check_voices(verifier: Verifier, path: str | os.PathLike) -> VoiceCheck:
    """Look for a second voice in a recording.

    Parameters
    ----------
    verifier : Verifier
        The model, with a calibration.
    path : str or Path
        The recording.

    Returns
    -------
    VoiceCheck
        What was found.

    Raises
    ------
    OSError, ValueError
        If the recording cannot be read or is too short, or the model ships no calibration.
    """
    if verifier.calibration is None:
        raise ValueError(
            f"the model {verifier.source} ships no calibration.json, without which voices do not compare"
        )
    places, vectors, bands = [], [], []
    for place, wav in windows(verifier.open_recording(path), verifier.sample_rate):
        places.append(place)
        vectors.append(np.asarray(verifier.embed_waveform(wav)))
        bands.append(bandwidth(wav, verifier.sample_rate))
    if len(places) < 2:
        return VoiceCheck(math.nan)
    return compare_windows(verifier.calibration, np.array(places), np.stack(vectors), max(bands))


def windows(recording: Recording, rate: int) -> Iterator[tuple[tuple[float, float], np.ndarray]]:
    """Yield each window of speech: its place in the recording in seconds, and its samples at `rate`, at one level."""
    before = 0.0
    for chunk in recording.chunks(rate, equal=False):
        wav, _ = remove_hum(chunk.wav, rate)
        for start, stop in speech.find_speech(wav, rate):
            if stop - start < LEAST_SECONDS * rate:
                continue
            count = max(1, round((stop - start) / (WINDOW_SECONDS * rate)))
            edges = np.linspace(start, stop, count + 1).astype(int)
            for begin, end in zip(edges[:-1], edges[1:], strict=True):
                part = wav[begin:end]
                yield (before + begin / rate, before + end / rate), part * speech.level_gain(part, rate)
        before += chunk.seconds


def compare_windows(
    calibration, places: np.ndarray, embeddings: np.ndarray, band: float = math.nan
) -> VoiceCheck:
    """Split windows into the two groups that differ most, and compare the groups.

    Parameters
    ----------
    calibration : Calibration or QualityFusion
        The model's.
    places : numpy.ndarray
        Start and end of each window in seconds, (windows, 2), two windows or more.
    embeddings : numpy.ndarray
        (windows, D).
    band : float
        Frequency in Hz up to which the recording holds sound; NaN: not known.

    Returns
    -------
    VoiceCheck
        What was found.

    Examples
    --------
    >>> from speechbrain_bccmt.scoring.calibration import Calibration
    >>> places = np.array([[0, 2], [2, 4], [4, 6], [6, 8]])
    >>> check = compare_windows(Calibration(20.0, -6.0), places, np.array([[1, 0], [1, 0.1], [0, 1], [1, 0]]))
    >>> check.times
    ((4.0, 6.0),)
    """
    vectors = unit_length(embeddings)
    second = _two_groups(vectors)
    seconds = places[:, 1] - places[:, 0]
    if seconds[second].sum() > seconds[~second].sum():
        second = ~second
    score = float(side_direction(vectors[~second]) @ side_direction(vectors[second]))
    quality = (side_quality([seconds[rows].sum()], [band]) for rows in (~second, second))
    llr = float(calibration.at(*quality).llr(score))
    if llr >= THRESHOLD:
        return VoiceCheck(llr)
    times: list[list[float]] = []
    for start, stop in places[second]:
        if times and start - times[-1][1] < LEAST_SECONDS:
            times[-1][1] = float(stop)
        else:
            times.append([float(start), float(stop)])
    return VoiceCheck(llr, tuple((start, stop) for start, stop in times))


def _two_groups(vectors: np.ndarray) -> np.ndarray:
    """Split unit vectors (n, d), two or more, by k-means; return which are in the second of two groups, (n,)."""
    products = vectors @ vectors.T
    first, other = np.unravel_index(int(products.argmin()), products.shape)
    second = products[:, other] > products[:, first]
    second[first], second[other] = False, True
    for _ in range(_ROUNDS):
        sums = [vectors[rows].sum(axis=0) for rows in (~second, second)]
        near = [vectors @ (side / max(np.linalg.norm(side), 1e-9)) for side in sums]
        found = near[1] > near[0]
        if found.all() or not found.any() or (found == second).all():
            break
        second = found
    return second
