"""Sequential decisions: accept or reject as soon as the requested error rate is reached, else wait for more speech.

Wald's test (1945) decides once the log-likelihood ratio of all data so far leaves an interval. The score of a growing
recording is not a sum of independent parts, and its calibrated ratio at one moment does not allow for a second look, so
the interval is fitted on whole streams to keep the error rate over all looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechbrain_bccmt.scoring.fitted_json import finite_number, load_fields, write_json

FORMAT = "speechbrain_bccmt sequential test"
VERSION = 1
# Error rates that thresholds are fitted for. Lower ones would need more streams than there are.
ERRORS = (0.1, 0.05, 0.02, 0.01, 0.005)


@dataclass(frozen=True)
class SequentialTest:
    """Log-likelihood ratios at which to accept and to reject, for each error rate.

    Parameters
    ----------
    errors : tuple of float
        Error rates, descending: the share of other speakers' streams that are ever accepted, and of the same speaker's
        streams that are ever rejected.
    accept, reject : tuple of float
        Thresholds on the log-likelihood ratio, one for each error rate.
    fitted_on : str
        What they were fitted on.

    Raises
    ------
    ValueError
        If there is not one pair of thresholds for each rate, rates do not descend, or a value is out of range.

    Examples
    --------
    >>> test = SequentialTest((0.1, 0.01), (2.0, 5.0), (-2.0, -4.0))
    >>> test.decide(4.9, 0.01), test.decide(5.0, 0.01), test.decide(-4.5, 0.01)
    (None, True, False)
    """

    errors: tuple[float, ...]
    accept: tuple[float, ...]
    reject: tuple[float, ...]
    fitted_on: str = ""

    def __post_init__(self):
        for name in ("errors", "accept", "reject"):
            values = tuple(finite_number(value, f"a value of {name}") for value in getattr(self, name))
            object.__setattr__(self, name, values)
        errors = self.errors
        if not errors or not len(errors) == len(self.accept) == len(self.reject):
            raise ValueError(f"{len(errors)} error rates need as many thresholds on either side")
        if (
            any(a <= b for a, b in zip(errors, errors[1:], strict=False))
            or not 0 < errors[-1] <= errors[0] < 0.5
        ):
            raise ValueError(f"error rates are {errors}, expected falling ones between 0 and 0.5")
        if any(low > high for low, high in zip(self.reject, self.accept, strict=True)):
            raise ValueError("a threshold to reject is above that to accept")

    @classmethod
    def wald(cls) -> SequentialTest:
        """Return Wald's thresholds, which hold if the ratios are exact and of all data so far."""
        bounds = [math.log((1 - error) / error) for error in ERRORS]
        return cls(ERRORS, tuple(bounds), tuple(-bound for bound in bounds), "Wald's bounds, not fitted")

    @classmethod
    def fit(
        cls,
        ratios: Sequence[np.ndarray],
        target: np.ndarray,
        weights: np.ndarray | None = None,
        errors: Sequence[float] = ERRORS,
        fitted_on: str = "",
    ) -> SequentialTest:
        """Fit thresholds that keep each error rate over all looks at a stream.

        Each threshold starts as a quantile of the streams' extremes, and moves inwards as streams already decided by
        the other are left out.

        Parameters
        ----------
        ratios : sequence of numpy.ndarray
            Calibrated log-likelihood ratios of each stream in the order of its looks, (looks,) each, at least one.
        target : array_like of bool
            Whether the stream is of the claimed speaker, (streams,).
        weights : array_like or None
            Weight of each stream, (streams,); equal if None.
        errors : sequence of float
            Error rates, descending.
        fitted_on : str
            Name of the streams, kept with the result.

        Returns
        -------
        SequentialTest
            The thresholds.

        Raises
        ------
        ValueError
            If a class has too few streams for an error rate, or shapes do not match.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> target = np.repeat([True, False], 2000)
        >>> steps = np.where(target, 1, -1)[:, None] / 2 + rng.normal(0, 1, (4000, 40))
        >>> test = SequentialTest.fit(list(steps.cumsum(axis=1)), target, errors=[0.1, 0.05])
        >>> [round(bound) for bound in test.accept]  # Wald: 2.2 and 2.9, reached from below by half a step
        [2, 3]
        """
        target = np.asarray(target, dtype=bool)
        if len(ratios) != len(target) or any(not len(row) for row in ratios):
            raise ValueError(f"{len(ratios)} streams, one or more ratios each, for {len(target)} targets")
        longest = max(len(row) for row in ratios)
        table = np.full((len(ratios), longest), np.nan)
        for row, values in zip(table, ratios, strict=True):
            row[: len(values)] = values
        counts = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
        for same in (True, False):
            if (target == same).sum() * min(errors) < 1:
                raise ValueError(
                    f"{(target == same).sum()} streams of {'the same speaker' if same else 'others'} are too few for "
                    f"an error rate of {min(errors):g}"
                )
        pairs = [_fit_pair(table, target, counts, error) for error in errors]
        accept, reject = zip(*pairs, strict=True)
        return cls(tuple(errors), accept, reject, fitted_on)

    def thresholds(self, error: float) -> tuple[float, float]:
        """Return the ratios at which to accept and to reject at an error rate, interpolated between the fitted rates.

        Raises
        ------
        ValueError
            If the rate is below the lowest one fitted, or not below one half.
        """
        if not self.errors[-1] <= error < 0.5:
            raise ValueError(
                f"an error rate of {error:g} cannot be promised: expected one from {self.errors[-1]:g} to below 0.5"
            )
        known = np.log(self.errors[::-1])  # above the highest rate its thresholds apply, stricter than needed
        return tuple(
            float(np.interp(math.log(error), known, side[::-1])) for side in (self.accept, self.reject)
        )

    def decide(self, llr: float, error: float) -> bool | None:
        """Accept (True), reject (False), or wait (None)."""
        accept, reject = self.thresholds(error)
        return True if llr >= accept else False if llr <= reject else None

    def save(self, path: str | Path) -> None:
        """Write the test as JSON, atomically."""
        write_json(path, FORMAT, VERSION, {name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: str | Path) -> SequentialTest:
        """Read what `save` wrote.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read, is no sequential test, or holds values out of range; the message names it.
        """
        return load_fields(cls, path, FORMAT, VERSION)


def decision_times(table: np.ndarray, accept: float, reject: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the looks at which each stream is first accepted and rejected, (streams,) each; infinity if never."""
    first = []
    for crossed in (table >= accept, table <= reject):
        first.append(np.where(crossed.any(axis=1), crossed.argmax(axis=1), np.inf))
    return first[0], first[1]


def _fit_pair(table: np.ndarray, target: np.ndarray, counts: np.ndarray, error: float) -> tuple[float, float]:
    accept, reject = np.inf, -np.inf
    looks = np.arange(table.shape[1])
    for _ in range(20):
        before = accept, reject
        for same in (False, True):
            rows = table[target == same]
            accepted, rejected = decision_times(rows, accept, reject)
            decided = rejected if not same else accepted
            open_ = np.isfinite(rows) & (looks < decided[:, None])
            # Streams that the other side decides at once have no extreme left.
            signed = np.where(open_, rows if not same else -rows, -np.inf).max(axis=1)
            bound = _upper_quantile(signed, counts[target == same], error)
            accept, reject = (accept, min(-bound, accept)) if same else (max(bound, reject), reject)
        if before == (accept, reject):
            break
    return float(accept), float(reject)


def _upper_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Return the smallest number that at most `share` of the weight reaches."""
    order = np.argsort(-values)
    reached = np.cumsum(weights[order]) / weights.sum()
    last = int(np.searchsorted(reached, share, side="right"))  # the first that would be one too many
    return float(np.nextafter(values[order[min(last, len(order) - 1)]], np.inf))
