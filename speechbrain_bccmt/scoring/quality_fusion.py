"""Quality-measure fusion: scores corrected by the quality of the two recordings.

Scores of short utterances spread wider, and an utterance close to every speaker scores high against all. Systems of the
VoxCeleb challenges correct for this by logistic regression (Thienpondt et al. 2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.scoring.calibration import Calibration
from speechbrain_bccmt.scoring.cosine import check_trials
from speechbrain_bccmt.scoring.fitted_json import finite_number, read_json, write_json
from speechbrain_bccmt.scoring.logistic import check_score_weight, fit_log_likelihood_ratio
from speechbrain_bccmt.scoring.metrics import equal_error_rate

FORMAT = "speechbrain_bccmt quality fusion"
VERSION = 2


@dataclass(frozen=True)
class QualityFusion:
    """A linear map from a score and the quality of both sides to a log-likelihood ratio.

    For each measure, the lower and the higher value of the two sides count, so enrolment and test may be swapped.

    Parameters
    ----------
    measures : tuple of str
        Names of the measures.
    lower, higher : tuple of float
        Weight of the lower and the higher value of each measure.
    ranges : tuple of tuple of float
        Lowest, median and highest value of each measure in the fitting data. Values outside are clipped: nothing is
        extrapolated.
    calibration : Calibration
        Weight of the score and offset, with the operating point and what it was fitted on.

    Raises
    ------
    ValueError
        If numbers do not match the names, or one is NaN or infinite.

    Examples
    --------
    >>> fusion = QualityFusion(("log_duration",), (1.0,), (0.5,), ((0.0, 1.0, 3.0),), Calibration(10.0, -5.0))
    >>> fusion.llr([0.4], [0], [1], {"log_duration": [1.0, 2.0]}).tolist()
    [1.0]
    >>> fusion.at({"log_duration": 1.0}, {"log_duration": 2.0}).offset, fusion.at().offset
    (-3.0, -3.5)
    """

    measures: tuple[str, ...]
    lower: tuple[float, ...]
    higher: tuple[float, ...]
    ranges: tuple[tuple[float, float, float], ...]
    calibration: Calibration

    def __post_init__(self):
        object.__setattr__(self, "measures", tuple(str(name) for name in self.measures))
        for side in ("lower", "higher"):
            weights = tuple(
                finite_number(weight, f"a weight of the {side} values") for weight in getattr(self, side)
            )
            if len(weights) != len(self.measures):
                raise ValueError(
                    f"{len(weights)} weights of the {side} values for {len(self.measures)} measures"
                )
            object.__setattr__(self, side, weights)
        ranges = tuple(tuple(finite_number(value, "a range") for value in row) for row in self.ranges)
        if len(ranges) != len(self.measures) or any(
            len(row) != 3 or list(row) != sorted(row) for row in ranges
        ):
            raise ValueError(
                f"ranges are {ranges}, expected lowest, median and highest of {len(self.measures)} measures"
            )
        object.__setattr__(self, "ranges", ranges)

    @classmethod
    def fit(
        cls,
        scores,
        target,
        enrol,
        test,
        measures: Mapping,
        p_target: float = 0.01,
        c_miss: float = 1,
        c_fa: float = 1,
        fitted_on: str = "",
        enrol_measures: Mapping | None = None,
    ) -> "QualityFusion":
        """Fit the weights by logistic regression, weighted for the operating point.

        Parameters
        ----------
        scores : array_like
            Scores of the trials, (M,), from speakers that occur in no evaluated trial.
        target : array_like of bool
            Which trials are target trials, (M,).
        enrol, test : array_like of int
            The two sides of each trial, (M,), as indices into the measures' values.
        measures : mapping of str to array_like
            Name of each measure to its value for each utterance, (N,): see `quality_measures`.
        p_target, c_miss, c_fa : float
            The operating point, see `Calibration.fit`.
        fitted_on : str
            Name of the trial list, kept with the result.
        enrol_measures : mapping or None
            The same measures of the models, if `enrol` points at models of several utterances.

        Returns
        -------
        QualityFusion
            For the operating point of `p_target`, `c_miss` and `c_fa`.

        Raises
        ------
        ValueError
            If shapes do not match, a class is empty, a value is NaN or infinite, or target scores are not the
            higher ones.
        """
        names = tuple(measures)
        if not names:
            raise ValueError("no quality measure is given: without one, use Calibration")
        features = _features(scores, enrol, test, measures, names, enrol_measures)
        values = features[:, 1:].reshape(len(features), len(names), 2)
        ranges = [
            (values[:, i].min(), np.median(values[:, i]), values[:, i].max()) for i in range(len(names))
        ]
        target = np.asarray(target)
        if target.shape != (len(features),) or target.dtype != bool:
            raise ValueError(
                f"target has shape {target.shape} and type {target.dtype}, expected booleans "
                f"({len(features)},), one a trial"
            )
        weights, offset = fit_log_likelihood_ratio(features, target, p_target, c_miss, c_fa)
        check_score_weight(weights[0], fitted_on)
        eer, _ = equal_error_rate(features[target, 0], features[~target, 0])
        sizes = int(target.sum()), int((~target).sum())
        calibration = Calibration(weights[0], offset, p_target, c_miss, c_fa, fitted_on, *sizes, eer)
        return cls(names, weights[1::2], weights[2::2], ranges, calibration)

    def llr(
        self, scores, enrol, test, measures: Mapping, enrol_measures: Mapping | None = None
    ) -> np.ndarray:
        """Compute log-likelihood ratios; accept at or above `calibration.llr_threshold`.

        Parameters
        ----------
        scores : array_like
            Raw scores, (M,).
        enrol, test : array_like of int
            The two sides of each trial, (M,), as indices into the measures' values.
        measures : mapping of str to array_like
            The measures that it was fitted on, (N,) each; others are ignored.
        enrol_measures : mapping or None
            Those of the models, if `enrol` points at models.

        Returns
        -------
        numpy.ndarray
            Natural-logarithm likelihood ratios, (M,), float64.

        Raises
        ------
        ValueError
            If a measure is missing, shapes do not fit, or a value is NaN or infinite.
        """
        features = _features(scores, enrol, test, measures, self.measures, enrol_measures)
        lowest, _, highest = np.repeat(self.ranges, 2, axis=0).T
        features[:, 1:] = features[:, 1:].clip(lowest, highest)
        weights = [weight for pair in zip(self.lower, self.higher, strict=True) for weight in pair]
        return features @ np.array([self.calibration.scale, *weights]) + self.calibration.offset

    def refit(self, scores, target, enrol, test, measures: Mapping, fitted_on: str = "") -> "QualityFusion":
        """Refit scale and offset on other trials; the measures keep their weights relative to the score.

        Parameters
        ----------
        scores, target, enrol, test, measures, fitted_on
            As for `fit`.

        Returns
        -------
        QualityFusion
            For the same operating point.

        Raises
        ------
        ValueError
            As `fit`.
        """
        llrs, target = self.llr(scores, enrol, test, measures), np.asarray(target, dtype=bool)
        point = {name: getattr(self.calibration, name) for name in ("p_target", "c_miss", "c_fa")}
        new = Calibration.fit(llrs[target], llrs[~target], **point, fitted_on=fitted_on)
        scale = new.scale * self.calibration.scale
        offset = new.scale * self.calibration.offset + new.offset
        lower, higher = (tuple(new.scale * weight for weight in side) for side in (self.lower, self.higher))
        return QualityFusion(
            self.measures, lower, higher, self.ranges, replace(new, scale=scale, offset=offset)
        )

    def at(self, enrolment: Mapping | None = None, test: Mapping | None = None) -> Calibration:
        """Return the calibration of scores between sides of known quality.

        Parameters
        ----------
        enrolment, test : mapping of str to float or None
            The measures of a side; None uses the medians of the fitting data.

        Returns
        -------
        Calibration
            With the threshold that holds at this quality.

        Raises
        ------
        ValueError
            If a measure is missing, NaN or infinite.
        """
        typical = {name: row[1] for name, row in zip(self.measures, self.ranges, strict=True)}
        enrolment, test = (
            {name: np.atleast_1d(value) for name, value in (typical if side is None else side).items()}
            for side in (enrolment, test)
        )
        offset = float(self.llr([0.0], [0], [0], test, enrolment)[0])
        return replace(self.calibration, offset=offset)

    def save(self, path: str | Path) -> None:
        """Write the fusion as JSON, atomically.

        Parameters
        ----------
        path : str or Path
            The file, replaced if it exists.
        """
        own = {name: getattr(self, name) for name in ("measures", "lower", "higher", "ranges")}
        of_score = {name: getattr(self.calibration, name) for name in Calibration.__dataclass_fields__}
        write_json(path, FORMAT, VERSION, own | of_score)

    @classmethod
    def load(cls, path: str | Path) -> "QualityFusion":
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
            The JSON file.

        Returns
        -------
        QualityFusion
            The fusion.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not a quality fusion, lacks a key, or holds values that are out of range.
        """
        own = ["measures", "lower", "higher", "ranges"]
        values = read_json(path, FORMAT, VERSION, [*own, *Calibration.__dataclass_fields__])
        try:
            lists = [values.pop(key) for key in own]
            if not all(isinstance(part, list) for part in lists):
                raise ValueError("measures, lower, higher and ranges must be lists")
            return cls(*lists, Calibration(**values))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error


def load_calibration(path: str | Path) -> Calibration | QualityFusion:
    """Read the calibration of a model, with or without quality measures.

    Raises
    ------
    OSError, ValueError
        As `Calibration.load`.
    """
    if f'"{FORMAT}"' in Path(path).read_text(encoding="utf-8", errors="replace"):
        return QualityFusion.load(path)
    return Calibration.load(path)


def _features(
    scores, enrol, test, measures: Mapping, names: tuple, enrol_measures: Mapping | None
) -> np.ndarray:
    """Lay out score, then lower and higher value of each measure: (M, 1 + 2 measures)."""
    scores = as_array(scores, np.float64)
    sides = []
    for of_side, side in (
        (measures if enrol_measures is None else enrol_measures, "enrol"),
        (measures, "test"),
    ):
        missing = [name for name in names if name not in of_side]
        if missing:
            raise ValueError(f"the {side} side lacks the quality measures {', '.join(missing)}")
        values = [as_array(of_side[name], np.float64) for name in names]
        for name, value in zip(names, values, strict=True):
            if value.shape != (len(values[0]),) or value.ndim != 1:
                raise ValueError(f"{name} has shape {value.shape}, expected one number for each utterance")
            if not np.isfinite(value).all():
                raise ValueError(
                    f"{name} holds NaN or infinite values, first number {np.argmin(np.isfinite(value))}"
                )
        sides.append(np.stack(values, axis=1))
    n_models = None if enrol_measures is None else len(sides[0])
    enrol, test = check_trials(enrol, test, len(sides[1]), n_models)
    if scores.shape != enrol.shape:
        raise ValueError(f"scores have shape {scores.shape}, expected one a trial, {enrol.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores hold NaN or infinite values, first number {np.argmin(np.isfinite(scores))}")
    features = np.empty((len(scores), 1 + 2 * len(names)))
    features[:, 0] = scores
    features[:, 1::2] = np.minimum(sides[0][enrol], sides[1][test])
    features[:, 2::2] = np.maximum(sides[0][enrol], sides[1][test])
    return features
