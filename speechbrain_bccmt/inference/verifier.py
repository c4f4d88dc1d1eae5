"""From recordings to embeddings and decisions, whatever computes the embeddings."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.audio.recording import Chunk, Recording
from speechbrain_bccmt.audio.speech import keep_speech
from speechbrain_bccmt.inference.chunk_mean import ChunkMean, embed_chunks
from speechbrain_bccmt.inference.model_files import OPEN_SET_FILE, SEQUENTIAL_FILE, find_own_file
from speechbrain_bccmt.inference.results import EmbeddedUtterance, Verification
from speechbrain_bccmt.inference.stream import Claim, SpeakerStream
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.open_set import OpenSet
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion
from speechbrain_bccmt.scoring.quality import side_quality
from speechbrain_bccmt.scoring.quality_fusion import QualityFusion
from speechbrain_bccmt.scoring.sequential import SequentialTest
from speechbrain_bccmt.scoring.vectors import side_direction

# About ten frames. Too short to verify anyone, but anything less holds no syllable.
MIN_SECONDS = 0.1


class Verifier:
    """Embeds recordings and verifies speakers; a subclass says how a waveform is embedded.

    Attributes
    ----------
    sample_rate : int
        Sample rate in Hz that the model works at; other audio is resampled.
    calibration : Calibration, QualityFusion or None
        Turns scores into probabilities, and has the threshold.
    source : str
        Where the model came from, for messages.
    vad : bool
        Embed only the speech of files; False: whole files, as for trial lists.
    min_seconds : float
        The shortest recording that is embedded.
    engine, device : str
        What computes the embeddings, and where; see `load_verifier`.
    in_batches : bool
        Whether several waveforms at once are faster than one by one.
    phrase_fusion : PhraseFusion or None
        Decides about speaker and phrase; see `inference.phrases`.

    Examples
    --------
    >>> class Loudness(Verifier):
    ...     sample_rate = 16000
    ...
    ...     def embed_waveform(self, wav):
    ...         return np.array([wav.std(), 1.0])
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.random.randn(32000) / 10, 16000)
    >>> Loudness().embed_file(path, vad=False).embedding.shape
    (2,)
    """

    sample_rate: int
    calibration: Calibration | QualityFusion | None = None
    source: str = ""
    vad: bool = True
    min_seconds: float = MIN_SECONDS
    engine: str = ""
    device: str = "cpu"
    in_batches: bool = False
    phrase_fusion: PhraseFusion | None = None

    def embed_waveform(self, wav: np.ndarray) -> np.ndarray:
        """Embed a waveform (samples,), float32, at the model's sample rate, all at once: (D,), float32."""
        raise NotImplementedError

    def embed_waveforms(self, wavs: Sequence[np.ndarray]) -> np.ndarray:
        """Embed waveforms, (samples,) each, as `embed_waveform` does: (N, D)."""
        return np.stack([self.embed_waveform(wav) for wav in wavs])

    @property
    def fingerprint(self) -> str:
        """Fingerprint that only embeddings of this model share; see `inference.fingerprint`."""
        raise NotImplementedError

    @property
    def threshold(self) -> float | None:
        """The score from which the decision is "same speaker", or None if the model ships none.

        If the calibration uses quality measures, this is the threshold for the median recording that it was fitted on.
        """
        return None if self.calibration is None else self.calibration.at().threshold

    def open_recording(self, path: str | os.PathLike) -> Recording:
        """Open a recording that is long enough for this model; errors are those of `embed_file`."""
        recording = Recording.open(path)
        if recording.seconds < self.min_seconds:
            raise ValueError(
                f"{path}: {recording.seconds:.4g} s is too short, this model takes {self.min_seconds:g} s or more"
            )
        return recording

    def read_chunks(self, recording: Recording, vad: bool) -> Iterator[Chunk]:
        """Yield the chunks of a recording to be embedded: only its speech, or all of it."""
        # Speech is joined and cut anew, so borders matter little: they are where those of a stream are.
        chunks = recording.chunks(self.sample_rate, equal=not vad)
        return keep_speech(chunks, self.sample_rate) if vad else chunks

    def embed_file(self, path: str | os.PathLike, vad: bool | None = None) -> EmbeddedUtterance:
        """Embed the speech of one recording, and measure its length, speech and clipping.

        More than 30 s (`audio.MAX_CHUNK_SECONDS`) are embedded in chunks, whose embeddings are averaged by length.

        Parameters
        ----------
        path : str or Path
            The file.
        vad : bool or None
            Whether to leave out hum and everything but speech; False: leave out only chunks without anything audible.
            None: as the model was loaded. Where no speech is found, the beginning of the recording is embedded, and
            its `speech_seconds` is 0.

        Returns
        -------
        EmbeddedUtterance
            With the embedding as NumPy array.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read, or is shorter than `min_seconds`; the message names it.
        """
        vad = self.vad if vad is None else vad
        chunks = self.read_chunks(self.open_recording(path), vad)
        embedding, chunks = embed_chunks(chunks, self.embed_waveform, self.sample_rate)
        if not np.isfinite(embedding).all():
            raise ValueError(
                f"{path}: its embedding is NaN or infinite: its samples are far beyond full scale, or the model's "
                "parameters are damaged"
            )
        return EmbeddedUtterance.from_chunks(path, embedding, chunks, vad)

    def verify_files(
        self, path_x, path_y, threshold: float | None = None, vad: bool | None = None
    ) -> Verification:
        """Verify that two recordings, or two groups of recordings, are of one speaker.

        Parameters
        ----------
        path_x, path_y : str, Path, or sequence of these
            The two sides. Several utterances on a side count alike: their embeddings, scaled to unit length, are
            averaged.
        threshold : float or None
            The score from which the decision is True; None: the one shipped with the model.
        vad : bool or None
            See `embed_file`.

        Returns
        -------
        Verification
            `score, decision = model.verify_files(a, b)` works.

        Raises
        ------
        OSError, ValueError
            If a file cannot be read or is too short, a side is empty, or there is no threshold.
        """
        self.resolve_threshold(threshold)  # raises before the long work
        sides = [
            [paths] if isinstance(paths, str | os.PathLike) else list(paths) for paths in (path_x, path_y)
        ]
        if not all(sides):
            raise ValueError("a side of the verification has no recording")
        embedded: dict = {}
        for path in sides[0] + sides[1]:
            if path not in embedded:
                embedded[path] = self.embed_file(path, vad)
        utterances = [tuple(embedded[path] for path in side) for side in sides]
        return self.verify_utterances(*utterances, threshold=threshold)

    def verify_utterances(
        self,
        enrolment: Sequence[EmbeddedUtterance],
        test: Sequence[EmbeddedUtterance],
        threshold: float | None = None,
    ) -> Verification:
        """Verify that embedded utterances are of one speaker; see `verify_files`."""
        given, threshold = threshold, self.resolve_threshold(threshold)
        if not enrolment or not test:
            raise ValueError("a side of the verification has no recording")
        # Utterances without speech are ignored on a side that has speech.
        sides = [[one for one in side if one.speech_seconds] or side for side in (enrolment, test)]
        x, y = (side_direction([utterance.embedding for utterance in side]) for side in sides)
        score = x @ y
        # Two recordings without speech may have nearly the same embedding, but still belong to nobody.
        heard = all(side[0].speech_seconds for side in sides)
        probability = llr = math.nan
        if self.calibration is not None and heard:
            calibration = self.calibration.at(*map(_quality, sides))
            probability, llr = float(calibration.probability(score)), float(calibration.llr(score))
            threshold = calibration.threshold if given is None else threshold
        decision = np.bool_(score >= threshold and heard)
        return Verification(score, decision, probability, llr, threshold, (*enrolment, *test))

    def stream(self, enrolled, sample_rate: int | None = None, error: float = 0.01) -> SpeakerStream:
        """Verify a live stream: audio goes in as it arrives, and a decision comes out as soon as it can be made.

        Parameters
        ----------
        enrolled : str, Path, EmbeddedUtterance, voiceprints.Reference, or array_like, or a sequence of one kind
            The claimed speaker: recordings, embedded ones, a store's reference, or embeddings (D,) or (u, D).
        sample_rate : int or None
            Sample rate of the stream in Hz; None: the model's.
        error : float
            Share of streams of the same speaker that may be rejected, and of others that may be accepted.

        Returns
        -------
        SpeakerStream
            `stream.feed(chunk)` takes chunks of any size, and `stream.finish()` ends it.

        Raises
        ------
        OSError, ValueError
            If the model ships no calibration, recordings cannot be used or have no speech, or the error rate or the
            sample rate is out of range.
        """
        rate = self.sample_rate if sample_rate is None else sample_rate
        return SpeakerStream(self, self._claim(enrolled), rate, error)

    def chunk_mean(self) -> ChunkMean:
        """Begin the embedding of a recording whose chunks arrive one by one."""
        return ChunkMean(self.embed_waveform, self.sample_rate)

    @property
    def sequential(self) -> SequentialTest:
        """Thresholds of sequential decisions: those shipped with the model, or Wald's, which guarantee nothing."""
        path = find_own_file(self.source, SEQUENTIAL_FILE)
        return SequentialTest.wald() if path is None else SequentialTest.load(path)

    @property
    def open_set(self) -> OpenSet:
        """Ratio that the best of many names must reach: fitted with the model, or a bound from the number of names."""
        path = find_own_file(self.source, OPEN_SET_FILE)
        return OpenSet.bound() if path is None else OpenSet.load(path)

    def _claim(self, enrolled) -> Claim:
        if hasattr(enrolled, "embeddings"):
            return Claim(enrolled.embeddings, side_quality(enrolled.seconds, enrolled.bandwidths))
        some = [enrolled] if isinstance(enrolled, str | os.PathLike | EmbeddedUtterance) else enrolled
        if isinstance(some, Sequence) and some and isinstance(some[0], str | os.PathLike | EmbeddedUtterance):
            utterances = [one if isinstance(one, EmbeddedUtterance) else self.embed_file(one) for one in some]
            for utterance in utterances:
                if not utterance.speech_seconds:
                    raise ValueError(f"{utterance.path}: has no speech to compare with")
            return Claim([one.embedding for one in utterances], _quality(utterances))
        return Claim(as_array(enrolled))

    def resolve_threshold(self, threshold: float | None = None) -> float:
        """Return the score to decide at: `threshold`, or the one shipped with the model.

        Raises
        ------
        ValueError
            If there is neither, or it is not a finite number.
        """
        if threshold is None:
            threshold = self.threshold
        if threshold is None:
            raise ValueError(
                f"the model{' ' + self.source if self.source else ''} ships no calibration.json, so that there is no "
                "threshold to decide at: give one (threshold=, --threshold), or calibrate the model on your own trials"
            )
        if not math.isfinite(threshold):
            raise ValueError(f"threshold is {threshold}, expected a finite number")
        return float(threshold)


def _quality(side: Sequence[EmbeddedUtterance]) -> dict[str, float]:
    return side_quality([one.speech_seconds for one in side], [one.bandwidth for one in side])
