"""Streaming verification: score, probability and decision, updated as audio arrives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from speechbrain_bccmt.audio import recording
from speechbrain_bccmt.audio.hum import remove_hum
from speechbrain_bccmt.audio.levels import bandwidth, flat_tops
from speechbrain_bccmt.audio.recording import Chunk, check_rate
from speechbrain_bccmt.audio.resampling import StreamResampler
from speechbrain_bccmt.audio.silero import RATE as DETECTOR_RATE
from speechbrain_bccmt.audio.silero import SpeechDetector
from speechbrain_bccmt.audio.speech import SpeechJoiner, level_gain, stretches_of
from speechbrain_bccmt.audio.waveforms import mix_down, to_float
from speechbrain_bccmt.inference.results import EmbeddedUtterance
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.scoring.vectors import side_direction

if TYPE_CHECKING:
    from speechbrain_bccmt.inference.verifier import Verifier

# Audio is processed in steps; smaller ones cost more than they gain.
STEP_SECONDS = 0.2
# The least speech that is scored, how much of the speech last scored must have come since, as a share and at most in
# seconds: all scores together then cost a small multiple of the last, and after minutes each changes little.
FIRST_SECONDS, GROWTH, MOST_SECONDS = 1.0, 0.25, 10.0
# Gain for audio that has been silent so far.
_MOST_GAIN = 1e6


@dataclass(frozen=True)
class LiveVerification:
    """The state of a verification after a chunk.

    Attributes
    ----------
    seconds, speech_seconds : float
        Audio received so far, and the speech in it.
    score, probability, llr : float
        As in `Verification`, for the speech that was last scored; NaN before there was enough.
    decision : bool or None
        True: same speaker, False: another, both at the requested error rate and final; None: not yet.
    decided_after : float or None
        Seconds of speech that the decision took.
    """

    seconds: float = 0.0
    speech_seconds: float = 0.0
    score: float = math.nan
    probability: float = math.nan
    llr: float = math.nan
    decision: bool | None = None
    decided_after: float | None = None


class Claim:
    """The enrolled side of a stream: one embedding and its quality measures.

    Parameters
    ----------
    embeddings : array_like
        (u, D), or one (D,).
    quality : mapping of str to float or None
        Their `side_quality`; None: not known, taken to be the median of the calibration.

    Raises
    ------
    ValueError
        If there are none, or one is NaN, infinite or zero.
    """

    def __init__(self, embeddings, quality: Mapping[str, float] | None = None):
        self.direction, self.quality = side_direction(embeddings), quality


class SpeakerStream:
    """Speech of a person that arrives in chunks, verified against a claim; see `Verifier.stream`.

    Speech is detected in steps of 0.2 s, and embedded anew when it has grown by a quarter since the last score. Memory
    does not grow with time.

    Parameters
    ----------
    verifier : Verifier
        The model, with a calibration.
    claim : Claim
        The claimed speaker.
    sample_rate : int
        Sample rate of the stream in Hz.
    error : float
        Share of streams of the same speaker that may be rejected, and of others that may be accepted, in all.
    name : str
        Name of the stream for messages.
    """

    def __init__(
        self,
        verifier: Verifier,
        claim: Claim,
        sample_rate: int,
        error: float = 0.01,
        name: str = "the stream",
    ):
        if verifier.calibration is None:
            raise ValueError(
                f"the model {verifier.source} ships no calibration.json, without which a stream cannot be decided: "
                "calibrate it on your own recordings (bccmt calibrate)"
            )
        self.name, self.state, self._verifier, self._claim = name, LiveVerification(), verifier, claim
        self._rate, self._native_rate = verifier.sample_rate, check_rate(sample_rate, "sample_rate")
        self._accept, self._reject = verifier.sequential.thresholds(error)
        self._step = math.ceil(STEP_SECONDS * self._native_rate)
        self._block_size = int(recording.MAX_CHUNK_SECONDS * self._rate)
        self._resampler = StreamResampler(self._native_rate, self._rate)
        self._joiner, self._mean = SpeechJoiner(self._rate), verifier.chunk_mean()
        self._waiting: list[np.ndarray] = []
        self._n_waiting = self._n_samples = self._channels = 0
        self._cancelled, self._utterance = False, None
        # Speech at the last score, and that of the blocks before the open one.
        self._scored_seconds = self._done_seconds = 0.0
        self._begin_block()

    def feed(self, chunk) -> LiveVerification:
        """Process a chunk, and return the new state.

        Parameters
        ----------
        chunk : array_like
            (samples,) or (samples, channels), of any length, even 0; numpy or torch, floating point or integers as in
            files.

        Returns
        -------
        LiveVerification
            Also kept as `state`.

        Raises
        ------
        ValueError
            If the stream has ended, shape or type are impossible, or a sample is NaN or infinite. Earlier chunks are
            kept.
        """
        if self._utterance is not None:
            raise ValueError(f"{self.name} has ended: begin another")
        samples = to_float(chunk)
        if samples.ndim == 1:
            samples = samples[:, None]
        if samples.ndim != 2 or not samples.shape[1]:
            raise ValueError(f"a chunk has shape {samples.shape}, expected (samples,) or (samples, channels)")
        if not np.isfinite(samples).all():
            raise ValueError(f"{self.name}: a chunk holds NaN or infinite samples")
        if samples.shape[1] != (self._channels or samples.shape[1]):
            raise ValueError(
                f"{self.name}: a chunk has {samples.shape[1]} channels, those before had {self._channels}"
            )
        self._channels = samples.shape[1]
        if len(samples):
            self._waiting.append(samples)
        self._n_waiting += len(samples)
        self._n_samples += len(samples)
        if self._n_waiting >= self._step:
            self._take_waiting()
        return self._tell()

    def finish(self) -> EmbeddedUtterance:
        """End the stream.

        Returns
        -------
        EmbeddedUtterance
            As `embed_file` returns for a file with the same samples; `state` then covers all speech.

        Raises
        ------
        ValueError
            If the stream is shorter than the model's `min_seconds`.
        """
        seconds = self._n_samples / self._native_rate
        if seconds < self._verifier.min_seconds:
            raise ValueError(
                f"{self.name}: {seconds:.4g} s is too short, this model takes {self._verifier.min_seconds:g} s or more"
            )
        if self._utterance is None:
            self._take_waiting()
            self._take(self._resampler.finish())
            if self._block:
                self._end_block()
            for part in self._joiner.finish():
                self._mean.add(part)
            embedding = self._mean.embedding()
            self._utterance = EmbeddedUtterance.from_chunks(self.name, embedding, self._mean.seen, vad=True)
            if self._utterance.speech_seconds:
                self._score(embedding, self._utterance.speech_seconds, self._utterance.bandwidth)
            self._tell()
        return self._utterance

    @property
    def _speech_seconds(self) -> float:
        return self._done_seconds + self._open_seconds

    def _tell(self) -> LiveVerification:
        self.state = replace(
            self.state, seconds=self._n_samples / self._native_rate, speech_seconds=self._speech_seconds
        )
        return self.state

    def _begin_block(self) -> None:
        self._detector, self._probabilities = SpeechDetector(), np.zeros(0, np.float32)
        self._detector_resampler = StreamResampler(self._rate, DETECTOR_RATE)
        self._block: list[np.ndarray] = []
        self._native: list[np.ndarray] = []
        self._n_block, self._gain, self._open_seconds = 0, math.inf, 0.0

    def _take_waiting(self) -> None:
        if self._waiting:
            samples = np.concatenate(self._waiting)
            self._waiting, self._n_waiting = [], 0
            mono, cancelled = mix_down(samples)
            self._cancelled |= cancelled
            self._native.append(samples)
            self._take(self._resampler.feed(mono))

    def _take(self, wav: np.ndarray) -> None:
        while len(wav):
            room = self._block_size - self._n_block
            self._detect(wav[:room])
            wav = wav[room:]
            if self._n_block == self._block_size:
                self._end_block()
        new = self._speech_seconds - self._scored_seconds
        wanted = max(FIRST_SECONDS * GROWTH, min(MOST_SECONDS, GROWTH * self._scored_seconds))
        if self._speech_seconds >= FIRST_SECONDS and new >= wanted:
            self._look()

    def _detect(self, wav: np.ndarray) -> None:
        """Detect speech in the new part of a block, at the level of the loudest part so far."""
        self._block.append(wav)
        self._n_block += len(wav)
        gain = level_gain(wav, self._rate)
        self._gain = min(self._gain, gain) if gain else self._gain
        heard = self._detector_resampler.feed(wav * min(self._gain, _MOST_GAIN))
        self._probabilities = np.concatenate([self._probabilities, self._detector.feed(heard)])
        stretches = stretches_of(self._probabilities, self._n_block, self._rate)
        self._open_seconds = sum(stop - start for start, stop in stretches) / self._rate

    def _look(self) -> None:
        """Score the speech so far, as if it ended here."""
        wav, _ = remove_hum(np.concatenate([np.zeros(0, np.float32), *self._block]), self._rate)
        stretches = stretches_of(self._probabilities, len(wav), self._rate)
        parts = self._joiner.pending(*(wav[slice(*stretch)] for stretch in stretches))
        self._scored_seconds = self._speech_seconds
        bands = [part.bandwidth for part in self._mean.seen] + [
            bandwidth(part.wav, self._rate) for part in parts
        ]
        self._score(self._mean.embedding(parts), self._speech_seconds, max(bands, default=math.nan))

    def _score(self, embedding: np.ndarray, speech_seconds: float, band: float) -> None:
        score = float(side_direction(embedding) @ self._claim.direction)
        calibration = self._verifier.calibration.at(
            self._claim.quality, side_quality([speech_seconds], [band])
        )
        llr, probability = float(calibration.llr(score)), float(calibration.probability(score))
        self.state = replace(self.state, score=score, probability=probability, llr=llr)
        decided = llr >= self._accept or llr <= self._reject
        if self.state.decision is None and decided and speech_seconds >= FIRST_SECONDS:
            self.state = replace(self.state, decision=llr >= self._accept, decided_after=speech_seconds)

    def _end_block(self) -> None:
        """Pass the block on to the speech joiner, exactly like a chunk of a file."""
        wav, native = np.concatenate(self._block), np.concatenate(self._native or [np.zeros((1, 1))])
        clipped = flat_tops(native) / len(native)
        for part in self._joiner.add(Chunk(wav, len(wav) / self._rate, 0.0, clipped, self._cancelled)):
            self._mean.add(part)
        done = sum(part.audible_seconds for part in self._mean.seen)
        self._done_seconds = done + self._joiner.pending_seconds
        self._cancelled = False
        self._begin_block()
