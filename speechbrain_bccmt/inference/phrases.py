"""Text-dependent verification: the same speaker saying the same phrase, and which of the two was wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from speechbrain_bccmt.inference.model_files import PHRASE_FILE
from speechbrain_bccmt.inference.results import EmbeddedUtterance
from speechbrain_bccmt.inference.verifier import Verifier
from speechbrain_bccmt.scoring.phrase_fusion import PhraseFusion


@dataclass(frozen=True)
class PhraseVerification:
    """Outcome of a text-dependent verification.

    Attributes
    ----------
    decision : bool
        Same speaker and same phrase, by both scores together.
    voice_score, phrase_score : float
        Cosines of the two sides.
    voice_llr, phrase_llr : float
        From each score alone: natural logarithm of the likelihood ratio of the same and another.
    probability : float
        Probability that speaker and phrase are the same, at the calibration's prior.
    utterances : tuple of EmbeddedUtterance
        The utterances of both sides.
    """

    decision: bool
    voice_score: float
    phrase_score: float
    voice_llr: float
    phrase_llr: float
    probability: float
    utterances: tuple[EmbeddedUtterance, ...]

    @property
    def reason(self) -> str:
        """What was right and what was wrong, such as "right voice, wrong phrase".

        If both speak for the same, but not strongly enough, the weaker one is uncertain.
        """
        llrs = {"voice": self.voice_llr, "phrase": self.phrase_llr}
        words = {part: "right" if self.decision or llr > 0 else "wrong" for part, llr in llrs.items()}
        if not self.decision and "wrong" not in words.values():
            words[min(llrs, key=llrs.get)] = "uncertain"
        return ", ".join(f"{word} {part}" for part, word in words.items())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the recordings."""
        return tuple(dict.fromkeys(text for utterance in self.utterances for text in utterance.warnings))


def check_phrases(verifier: Verifier) -> PhraseFusion:
    """Return the fusion that decides about phrases, or raise a ValueError if the model knows no phrases."""
    if verifier.phrase_fusion is None:
        raise ValueError(
            f"{verifier.source or 'the model'} has no {PHRASE_FILE}, it knows voices alone: train one that knows "
            "phrases as well by recipes/PhraseCorpus and hparams/voice_phrase.yaml"
        )
    return verifier.phrase_fusion


def verify_phrase(
    verifier: Verifier, enrolment: Sequence[EmbeddedUtterance], test: Sequence[EmbeddedUtterance]
) -> PhraseVerification:
    """Verify that embedded utterances are of one speaker saying one phrase.

    Parameters
    ----------
    verifier : Verifier
        Its model was trained with `hparams/voice_phrase.yaml`.
    enrolment, test : sequence of EmbeddedUtterance
        The two sides, see `Verifier.embed_file`. Several utterances on a side count alike.

    Returns
    -------
    PhraseVerification
        A side without speech matches no voice and no phrase.

    Raises
    ------
    ValueError
        As for `check_phrases`, or if a side has no utterance.
    """
    fusion = check_phrases(verifier)
    if not enrolment or not test:
        raise ValueError("a side of the verification has no recording")
    utterances = (*enrolment, *test)
    heard = [[one.embedding for one in side if one.speech_seconds] for side in (enrolment, test)]
    if not all(heard):
        return PhraseVerification(False, 0.0, 0.0, -math.inf, -math.inf, 0.0, utterances)
    voice, phrase = fusion.scores(*heard)
    fused = fusion.fuse(voice, phrase)
    return PhraseVerification(
        bool(fusion.both.decide(fused)),
        voice,
        phrase,
        float(fusion.voice.llr(voice)),
        float(fusion.phrase.llr(phrase)),
        float(fusion.both.probability(fused)),
        utterances,
    )
