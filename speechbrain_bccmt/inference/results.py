"""The results of embedding a recording and of verifying a speaker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechbrain_bccmt.audio.recording import CLIPPED_SHARE, Chunk
from speechbrain_bccmt.scoring.quality import NARROW_HZ

if TYPE_CHECKING:
    import torch

# A smaller share of speech is worth a warning: whoever made the recording may care about the rest of it.
MOSTLY_SILENT = 0.2


@dataclass(frozen=True)
class EmbeddedUtterance:
    """A recording's embedding, and facts about the recording.

    Attributes
    ----------
    path : str
        The file.
    embedding : numpy.ndarray
        (D,), float32.
    seconds : float
        Length of the recording.
    speech_seconds : float
        How much of it is speech, or audible where voice activity detection is off; 0: it is nobody's voice.
    warnings : tuple of str
        About no or little speech, a narrow band, clipping, hum, and channels that cancel each other; each begins with
        the path.
    clipped_share, bandwidth, level, noise_ratio : float
        See `audio.recording.Chunk`; the last two are known if only speech was embedded, else NaN.
    """

    path: str
    embedding: np.ndarray
    seconds: float
    speech_seconds: float
    warnings: tuple[str, ...] = ()
    clipped_share: float = 0.0
    bandwidth: float = math.inf
    level: float = math.nan
    noise_ratio: float = math.nan

    @classmethod
    def from_chunks(
        cls, path, embedding: np.ndarray, chunks: Sequence[Chunk], vad: bool = False
    ) -> EmbeddedUtterance:
        """Summarise the chunks of a recording.

        Parameters
        ----------
        path : str or Path
            The file.
        embedding : numpy.ndarray
            (D,), float32.
        chunks : sequence of Chunk
            All chunks of the recording; their samples are not used.
        vad : bool
            Whether they are only its speech.

        Returns
        -------
        EmbeddedUtterance
            With its warnings.
        """
        seconds = sum(chunk.seconds for chunk in chunks)
        audible = sum(chunk.audible_seconds for chunk in chunks)
        clipped = sum(chunk.clipped_share * chunk.seconds for chunk in chunks) / seconds
        warnings = []
        if audible == 0 and vad:
            warnings.append(f"{path}: no speech in its {seconds:.4g} s")
        elif audible == 0:
            warnings.append(f"{path}: silent, nothing in it stands out of its noise")
        elif audible < MOSTLY_SILENT * seconds and vad:
            warnings.append(f"{path}: little speech, {audible:.3g} s of speech in {seconds:.4g} s")
        elif audible < MOSTLY_SILENT * seconds:
            heard = f"{audible:.3g} of {seconds:.4g} s"
            warnings.append(f"{path}: mostly silent, {heard} are audible: cut the silence off")
        if clipped > CLIPPED_SHARE:
            warnings.append(f"{path}: clipped, {100 * clipped:.3g} % of its samples lie in flat tops")
        band = max(chunk.bandwidth for chunk in chunks)
        if audible and band <= NARROW_HZ:
            warnings.append(f"{path}: narrow band (telephone), nothing above {band / 1000:.3g} kHz")
        if hum := max(chunk.hum for chunk in chunks):
            warnings.append(f"{path}: a hum of {hum} Hz was filtered out")
        if any(chunk.cancelled for chunk in chunks):
            warnings.append(
                f"{path}: its channels cancel each other, as if one were inverted: one of them is used"
            )
        level = max(chunk.level for chunk in chunks)
        ratio = min(chunk.noise_ratio for chunk in chunks)
        return cls(str(path), embedding, seconds, audible, tuple(warnings), clipped, band, level, ratio)


@dataclass(frozen=True)
class Verification:
    """Outcome of a verification; `score, decision = outcome` works, as with SpeechBrain.

    Attributes
    ----------
    score : numpy.float64 or torch.Tensor
        Cosine of the two sides.
    decision : numpy.bool or torch.Tensor
        True: same speaker. A side without speech is nobody's voice and is rejected, whatever its score.
    probability : float or torch.Tensor
        Probability that both sides are one speaker, at the calibration's prior; NaN without a calibration, or if a
        side has no speech.
    llr : float or torch.Tensor
        Natural logarithm of the likelihood ratio of "same" and "different"; NaN in the same cases.
    threshold : float or torch.Tensor
        The score from which the decision is True, at the quality of these recordings.
    utterances : tuple of EmbeddedUtterance
        The utterances of both sides; empty for batches of waveforms.

    Examples
    --------
    >>> score, decision = Verification(0.7, True, 0.9, 2.2, 0.4)
    """

    score: np.float64 | torch.Tensor
    decision: np.bool_ | torch.Tensor
    probability: float | torch.Tensor
    llr: float | torch.Tensor
    threshold: float | torch.Tensor
    utterances: tuple[EmbeddedUtterance, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the recordings, such as little speech or clipping."""
        return tuple(dict.fromkeys(text for utterance in self.utterances for text in utterance.warnings))

    def __iter__(self):
        return iter((self.score, self.decision))

    def __getitem__(self, index):
        return (self.score, self.decision)[index]

    def __len__(self):
        return 2
