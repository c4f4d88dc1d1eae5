"""Calibration: raw scores to log-likelihood ratios, and to decisions at an operating point."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.scoring.fitted_json import finite_number, read_json, write_json
from speechbrain_bccmt.scoring.logistic import (
    check_score_weight,
    effective_prior_log_odds,
    fit_log_likelihood_ratio,
)
from speechbrain_bccmt.scoring.metrics import check_scores, equal_error_rate

FORMAT = "speechbrain_bccmt calibration"
VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """An affine map from raw scores to log-likelihood ratios, and the operating point it decides at.

    llr = scale * score + offset, in natural logarithms (Bruemmer and du Preez 2006). Another operating point
    needs no new fit: `dataclasses.replace(calibration, p_target=0.05)`.

    Parameters
    ----------
    scale : float
        Log-likelihood ratio per unit of score, positive.
    offset : float
        Log-likelihood ratio at score 0.
    p_target : float
        Prior probability that a trial is a target trial, in (0, 1).
    c_miss : float
        Cost of a miss, positive.
    c_fa : float
        Cost of a false alarm, positive.
    fitted_on : str
        What it was fitted on: the name of a trial list.
    n_target, n_nontarget : int
        Numbers of trials that it was fitted on.
    eer : float
        Equal error rate of those trials, in [0, 1].

    Raises
    ------
    ValueError
        If a value is out of its range, NaN or infinite.

    Examples
    --------
    >>> calibration = Calibration(scale=20.0, offset=-6.0, p_target=0.5)
    >>> calibration.threshold, calibration.decide([0.2, 0.4]).tolist()
    (0.3, [False, True])
    >>> calibration.probability([0.3]).tolist()
    [0.5]
    """

    scale: float
    offset: float
    p_target: float = 0.01
    c_miss: float = 1.0
    c_fa: float = 1.0
    fitted_on: str = ""
    n_target: int = 0
    n_nontarget: int = 0
    eer: float = 0.0

    def __post_init__(self):
        for name in ("scale", "offset", "p_target", "c_miss", "c_fa", "eer"):
            object.__setattr__(self, name, finite_number(getattr(self, name), name))
        if self.scale <= 0:
            raise ValueError(
                f"the calibration's scale is {self.scale:g}, expected a positive one: higher scores must "
                "speak for the same speaker"
            )
        effective_prior_log_odds(self.p_target, self.c_miss, self.c_fa)
        if not 0 <= self.eer <= 1:
            raise ValueError(f"the calibration's eer is {self.eer:g}, expected a rate from 0 to 1")
        for name in ("n_target", "n_nontarget"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
                raise ValueError(f"the calibration's {name} is {value!r}, expected a number of trials")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.fitted_on, str):
            raise ValueError(f"the calibration's fitted_on is {self.fitted_on!r}, expected a name")

    @classmethod
    def fit(
        cls,
        target_scores,
        nontarget_scores,
        p_target: float = 0.01,
        c_miss: float = 1,
        c_fa: float = 1,
        fitted_on: str = "",
    ) -> "Calibration":
        """Fit scale and offset by logistic regression, weighted for the operating point.

        See `fit_log_likelihood_ratio` for the objective, and for why classes that do not overlap give finite
        ratios.

        Parameters
        ----------
        target_scores : array_like
            Scores of the target trials, from speakers that occur in no evaluated trial.
        nontarget_scores : array_like
            Scores of the non-target trials.
        p_target : float
            Prior probability of a target trial, in (0, 1).
        c_miss : float
            Cost of a miss, positive.
        c_fa : float
            Cost of a false alarm, positive.
        fitted_on : str
            Name of the trial list, kept with the result.

        Returns
        -------
        Calibration
            For the operating point of `p_target`, `c_miss` and `c_fa`.

        Raises
        ------
        ValueError
            If a class has no score, a score is NaN or infinite, all scores are equal, prior or costs are out
            of range, or target scores are not the higher ones.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> calibration = Calibration.fit(rng.normal(4, 1, 5000), rng.normal(0, 1, 50000), fitted_on="dev")
        >>> round(calibration.scale), round(calibration.offset)  # 4 and -8 in theory
        (4, -8)
        """
        targets = check_scores(target_scores, "target")
        nontargets = check_scores(nontarget_scores, "non-target")
        target = np.repeat([True, False], [targets.size, nontargets.size])
        weights, offset = fit_log_likelihood_ratio(
            np.concatenate([targets, nontargets])[:, None], target, p_target, c_miss, c_fa
        )
        check_score_weight(weights[0], fitted_on)
        eer, _ = equal_error_rate(targets, nontargets)
        sizes = {"n_target": targets.size, "n_nontarget": nontargets.size}
        return cls(weights[0], offset, p_target, c_miss, c_fa, fitted_on, eer=eer, **sizes)

    def at(self, enrolment=None, test=None) -> "Calibration":
        """Return this calibration for sides of any quality, to match `QualityFusion.at`."""
        return self

    @property
    def llr_threshold(self) -> float:
        """Bayes' threshold on log-likelihood ratios: ln(c_fa (1 - p_target) / (c_miss p_target))."""
        return -effective_prior_log_odds(self.p_target, self.c_miss, self.c_fa)

    @property
    def threshold(self) -> float:
        """The lowest raw score at which a trial is accepted."""
        return (self.llr_threshold - self.offset) / self.scale

    def llr(self, scores) -> np.ndarray:
        """Turn raw scores into natural-logarithm likelihood ratios.

        Parameters
        ----------
        scores : array_like
            Raw scores, of any shape; numpy or torch.

        Returns
        -------
        numpy.ndarray
            float64, in the shape of `scores`.

        Raises
        ------
        ValueError
            If a score is NaN or infinite.
        """
        return self.scale * _raw_scores(scores) + self.offset

    def probability(self, scores, p_target: float | None = None) -> np.ndarray:
        """Compute the posterior probability that both sides of a trial are the same speaker.

        Parameters
        ----------
        scores : array_like
            Raw scores, of any shape.
        p_target : float or None
            Prior probability; that of the operating point if None. Costs play no part.

        Returns
        -------
        numpy.ndarray
            In [0, 1], in the shape of `scores`.

        Raises
        ------
        ValueError
            If a score is NaN or infinite, or `p_target` is out of range.
        """
        prior = self.p_target if p_target is None else p_target
        log_odds = self.llr(scores) + effective_prior_log_odds(prior)
        return np.exp(-np.logaddexp(0, -log_odds))

    def decide(self, scores) -> np.ndarray:
        """Accept (True) or reject trials at the operating point.

        Parameters
        ----------
        scores : array_like
            Raw scores, of any shape.

        Returns
        -------
        numpy.ndarray of bool
            Whether each score reaches `threshold`, in the shape of `scores`.

        Raises
        ------
        ValueError
            If a score is NaN or infinite.
        """
        return _raw_scores(scores) >= self.threshold

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, atomically.

        Parameters
        ----------
        path : str or Path
            The file, replaced if it exists.
        """
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_json(path, FORMAT, VERSION, values | {"threshold": self.threshold})

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
            The JSON file.

        Returns
        -------
        Calibration
            The calibration.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is no calibration, lacks a key, or holds values that are out of range or contradict each
            other.
        """
        values = read_json(path, FORMAT, VERSION, [*cls.__dataclass_fields__, "threshold"])
        try:
            threshold = finite_number(values.pop("threshold"), "threshold")
            calibration = cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        # Other programs read the threshold itself, so it must be the one this package decides with.
        if not math.isclose(threshold, calibration.threshold, rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(
                f"{path}: the threshold {threshold:g} is not that of its scale, offset, prior and costs, "
                f"{calibration.threshold:g}: change p_target, c_miss or c_fa and the threshold together"
            )
        return calibration


def _raw_scores(scores) -> np.ndarray:
    scores = as_array(scores, np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {scores.size} scores are NaN or infinite, first number {wrong[0]}: "
            f"{scores.reshape(-1)[wrong[0]]}"
        )
    return scores
