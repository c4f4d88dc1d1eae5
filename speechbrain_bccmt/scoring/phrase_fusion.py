"""Fusion of a voice score and a phrase score into one decision that says which of them was wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.fitted_json import finite_number, read_json, write_json
from speechbrain_bccmt.scoring.logistic import check_score_weight, fit_log_likelihood_ratio
from speechbrain_bccmt.scoring.metrics import equal_error_rate
from speechbrain_bccmt.scoring.vectors import side_direction

FORMAT = "speechbrain_bccmt phrase fusion"
VERSION = 1


@dataclass(frozen=True)
class PhraseFusion:
    """Log-likelihood ratio of the same speaker saying the same phrase, from the cosines of voice and phrase.

    Parameters
    ----------
    voice_size : int
        How many of an embedding's first values represent the voice; the rest represent the phrase.
    voice_weight : float
        Weight of the voice score relative to the phrase score.
    both : Calibration
        For `fuse(voice, phrase)`: same speaker and same phrase, against anything else.
    voice, phrase : Calibration
        For each score alone, at even odds: same speaker, same phrase. They explain a decision but do not make it.

    Raises
    ------
    ValueError
        If a number is not positive.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> speaker, phrase = rng.random((2, 4000)) < 0.5
    >>> voices, phrases = (rng.normal(same, 0.3) for same in (speaker, phrase))
    >>> fusion = PhraseFusion.fit(192, voices, phrases, speaker, phrase, p_target=0.5)
    >>> fusion.both.decide(fusion.fuse([1.0, 1.0, 0.0], [1.0, 0.0, 1.0])).tolist()
    [True, False, False]
    >>> fusion.voice.decide([1.0, 0.0]).tolist(), fusion.phrase.decide([0.0, 1.0]).tolist()
    ([True, False], [False, True])
    """

    voice_size: int
    voice_weight: float
    both: Calibration
    voice: Calibration
    phrase: Calibration

    def __post_init__(self):
        object.__setattr__(self, "voice_weight", finite_number(self.voice_weight, "voice_weight"))
        if self.voice_weight <= 0:
            raise ValueError(f"voice_weight is {self.voice_weight:g}, expected a positive number")
        if not isinstance(self.voice_size, int) or self.voice_size < 1:
            raise ValueError(f"voice_size is {self.voice_size!r}, expected a number of values")

    @classmethod
    def fit(
        cls,
        voice_size: int,
        voice_scores,
        phrase_scores,
        same_speaker,
        same_phrase,
        p_target: float = 0.01,
        c_miss: float = 1,
        c_fa: float = 1,
        fitted_on: str = "",
    ) -> PhraseFusion:
        """Fit all parts by logistic regression, weighted for the operating point.

        Parameters
        ----------
        voice_size : int
            See the class.
        voice_scores, phrase_scores : array_like
            One score per trial, (M,).
        same_speaker, same_phrase : array_like of bool
            Whether the two sides of each trial match, (M,).
        p_target, c_miss, c_fa, fitted_on
            See `Calibration.fit`.

        Returns
        -------
        PhraseFusion
            For the operating point of `p_target`, `c_miss` and `c_fa`.

        Raises
        ------
        ValueError
            As `Calibration.fit`, for each of the two scores and for both.
        """
        scores = np.stack([np.asarray(part, np.float64) for part in (voice_scores, phrase_scores)], axis=1)
        speaker, phrase = (np.asarray(part, bool) for part in (same_speaker, same_phrase))
        point = p_target, c_miss, c_fa
        alone = [
            Calibration.fit(column[same], column[~same], 0.5, fitted_on=fitted_on)
            for column, same in zip(scores.T, (speaker, phrase), strict=True)
        ]
        weights, offset = fit_log_likelihood_ratio(scores, speaker & phrase, *point)
        for weight in weights:
            check_score_weight(weight, fitted_on)
        fused, target = scores @ weights / weights[1], speaker & phrase
        eer, _ = equal_error_rate(fused[target], fused[~target])
        sizes = {"n_target": int(target.sum()), "n_nontarget": int((~target).sum())}
        both = Calibration(weights[1], offset, *point, fitted_on, eer=eer, **sizes)
        return cls(voice_size, weights[0] / weights[1], both, *alone)

    def scores(self, enrolment, test) -> tuple[float, float]:
        """Compute the cosines of voice and phrase between two sides.

        Parameters
        ----------
        enrolment, test : sequence of array_like
            Embeddings (D,) of each side; several count equally.

        Returns
        -------
        tuple of float
            Cosine of the voices and of the phrases.
        """
        sides = [np.stack([as_array(vector) for vector in side]) for side in (enrolment, test)]
        parts = slice(self.voice_size), slice(self.voice_size, None)
        directions = [[side_direction(side[:, part]) for side in sides] for part in parts]
        return tuple(float(x @ y) for x, y in directions)

    def fuse(self, voice_scores, phrase_scores) -> np.ndarray:
        """Return the fused scores, which `both` calibrates: float64, in the shape of the inputs."""
        return self.voice_weight * np.asarray(voice_scores, np.float64) + np.asarray(phrase_scores, np.float64)

    def save(self, path: str | Path) -> None:
        """Write the fusion as JSON, atomically."""
        write_json(path, FORMAT, VERSION, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> PhraseFusion:
        """Read what `save` wrote.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not a phrase fusion, lacks a key, or holds values that are out of range.
        """
        values = read_json(path, FORMAT, VERSION, list(cls.__dataclass_fields__))
        try:
            size, weight = values.pop("voice_size"), values.pop("voice_weight")
            return cls(size, weight, **{name: Calibration(**part) for name, part in values.items()})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
