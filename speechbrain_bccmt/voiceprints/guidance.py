"""Guided enrolment: what a recording adds to a voiceprint, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from speechbrain_bccmt.audio.recording import CLIPPED_SHARE
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion
from speechbrain_bccmt.scoring.quality import NARROW_HZ, side_quality
from speechbrain_bccmt.scoring.vectors import side_direction
from speechbrain_bccmt.voiceprints.records import Reference

# Seconds of speech a voiceprint needs; more adds little (docs/live.md).
NEEDED_SECONDS = 10.0
LITTLE_SECONDS = 1.0  # a recording with less speech is worth a remark
# Level of the loud parts in dBFS below which 16 bits begin to round; dB between loud and quiet parts: docs/live.md.
QUIET_LEVEL, NOISY_RATIO = -45.0, 15.0
# From this log-likelihood ratio on, a recording is of the same voice as what was enrolled before: whoever enrols
# somebody says that it is, so both kinds of error count alike.
MATCHES = 0.0


@dataclass(frozen=True)
class Advice:
    """Advice on a recording.

    Attributes
    ----------
    accepted : bool
        Whether it becomes part of the voiceprint.
    percent : int
        Percentage of the speech a voiceprint needs that has been collected, 0 to 100.
    reasons : tuple of str
        What is wrong: why it is not accepted, or what could be better.
    """

    accepted: bool
    percent: int
    reasons: tuple[str, ...] = ()


@dataclass
class Enrolment:
    """Enrolment of one name, recording by recording.

    Parameters
    ----------
    calibration : Calibration, QualityFusion or None
        The model's; None: voices are not compared.
    before : Reference or None
        What is already enrolled under the name.
    phrases : PhraseFusion or None
        If given, all recordings have to say the same phrase.

    Attributes
    ----------
    taken : list
        The accepted utterances that are new.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from speechbrain_bccmt.scoring.calibration import Calibration
    >>> def utterance(x, y):
    ...     return SimpleNamespace(
    ...         embedding=np.array([x, y]), speech_seconds=4.0, level=-20.0, noise_ratio=40.0, clipped_share=0.0,
    ...         bandwidth=8000.0)
    >>> enrolment = Enrolment(Calibration(20.0, -6.0))
    >>> enrolment.add(utterance(1, 0)).percent, enrolment.add(utterance(0, 1)), enrolment.add(utterance(1, 0.1)).percent
    (40, Advice(accepted=False, percent=40, reasons=('another voice than before',)), 80)
    """

    calibration: object = None
    before: Reference | None = None
    phrases: PhraseFusion | None = None
    taken: list = field(default_factory=list)

    @property
    def percent(self) -> int:
        """Percentage of the required speech that has been collected, 0 to 100."""
        return int(min(100.0, 100.0 * sum(self._seconds()) / NEEDED_SECONDS))

    def add(self, utterance, second_voice: str | None = None, force: bool = False) -> Advice:
        """Add a recording, or say why not.

        Parameters
        ----------
        utterance : EmbeddedUtterance
            The recording.
        second_voice : str or None
            Where another voice was heard in it.
        force : bool
            Accept it even if it is of another voice, or of two.

        Returns
        -------
        Advice
            What to do. A recording without speech is never accepted.
        """
        refused, better = [], []
        if not utterance.speech_seconds:
            return Advice(False, self.percent, ("no speech",))
        refused += [f"another {part} than before" for part in self.mismatches(utterance)]
        if second_voice:
            refused.append(f"two voices: {second_voice}")
        if utterance.speech_seconds < LITTLE_SECONDS:
            better.append(f"too little speech, {utterance.speech_seconds:.1f} s")
        if utterance.level < QUIET_LEVEL:
            better.append(f"too quiet, {utterance.level:.0f} dBFS")
        if utterance.clipped_share > CLIPPED_SHARE:
            better.append(f"clipped, {100 * utterance.clipped_share:.2g} % of it")
        if utterance.noise_ratio < NOISY_RATIO:
            better.append(f"too noisy, speech only {utterance.noise_ratio:.0f} dB above its pauses")
        if utterance.bandwidth <= NARROW_HZ:
            better.append(f"narrow band (telephone), nothing above {utterance.bandwidth / 1000:.3g} kHz")
        accepted = force or not refused
        if accepted and not any(np.array_equal(utterance.embedding, vector) for vector in self._vectors()):
            self.taken.append(utterance)  # the same recording again adds nothing
        return Advice(accepted, self.percent, (*refused, *better))

    def mismatches(self, utterance) -> list[str]:
        """Name what differs from what was enrolled before: "voice", "phrase"; nothing for a first utterance."""
        vectors = self._vectors()
        if self.phrases is not None and vectors:
            scores = self.phrases.scores(vectors, [utterance.embedding])
            parts = {"voice": self.phrases.voice, "phrase": self.phrases.phrase}
            return [
                name
                for (name, part), score in zip(parts.items(), scores, strict=True)
                if part.llr(score) < MATCHES
            ]
        if self.calibration is None or not vectors:
            return []
        score = side_direction(vectors) @ side_direction(utterance.embedding)
        before = side_quality(self._seconds(), self._bandwidths())
        own = side_quality([utterance.speech_seconds], [utterance.bandwidth])
        return [] if float(self.calibration.at(before, own).llr(score)) >= MATCHES else ["voice"]

    def _vectors(self) -> list[np.ndarray]:
        before = [] if self.before is None else list(self.before.embeddings)
        return [*before, *(one.embedding for one in self.taken)]

    def _seconds(self) -> list[float]:
        before = [] if self.before is None else list(self.before.seconds)
        return [*before, *(one.speech_seconds for one in self.taken)]

    def _bandwidths(self) -> list[float]:
        before = [] if self.before is None else list(self.before.bandwidths)
        return [*before, *(one.bandwidth for one in self.taken)]
