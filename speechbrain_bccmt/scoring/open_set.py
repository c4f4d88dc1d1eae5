"""Open-set identification: the more names are enrolled, the closer the nearest one is to a stranger."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechbrain_bccmt.scoring.fitted_json import finite_number, load_fields, write_json

FORMAT = "speechbrain_bccmt open set"
VERSION = 1


@dataclass(frozen=True)
class OpenSet:
    """The log-likelihood ratio that the best name must reach, for each number of names and each error rate.

    Parameters
    ----------
    errors : tuple of float
        Shares of strangers taken for some name, descending.
    names : tuple of int
        Numbers of enrolled names, ascending.
    thresholds : tuple of tuple of float
        A row for each error rate: the ratios for each number of names.
    margin : float
        By how much the best name's ratio must exceed the next one's.
    fitted_on : str
        What they were fitted on.

    Raises
    ------
    ValueError
        If sizes do not match, or a value is out of range.

    Examples
    --------
    >>> known = OpenSet((0.05, 0.01), (1, 100), ((0.0, 4.0), (1.0, 5.0)), margin=0.5)
    >>> known.threshold(1, 0.01), known.threshold(10, 0.01), round(known.threshold(1000, 0.01), 3)
    (1.0, 3.0, 7.0)
    >>> known.accepts([4.0, 3.0], 10, 0.01), known.accepts([4.0, 3.9], 10, 0.01), known.accepts([2.9], 10, 0.01)
    (True, False, False)
    """

    errors: tuple[float, ...]
    names: tuple[int, ...]
    thresholds: tuple[tuple[float, ...], ...]
    margin: float = 0.0
    fitted_on: str = ""

    def __post_init__(self):
        errors = tuple(finite_number(value, "an error rate") for value in self.errors)
        names = tuple(int(finite_number(value, "a number of names")) for value in self.names)
        rows = tuple(tuple(finite_number(value, "a threshold") for value in row) for row in self.thresholds)
        if (
            list(errors) != sorted(set(errors), reverse=True)
            or not errors
            or not 0 < errors[-1] <= errors[0] < 1
        ):
            raise ValueError(f"error rates are {errors}, expected falling ones between 0 and 1")
        if list(names) != sorted(set(names)) or not names or names[0] < 1:
            raise ValueError(f"numbers of names are {names}, expected rising ones from 1 on")
        if len(rows) != len(errors) or any(len(row) != len(names) for row in rows):
            raise ValueError(f"thresholds are no table of {len(errors)} by {len(names)}")
        if finite_number(self.margin, "margin") < 0:
            raise ValueError(f"margin is {self.margin}, expected 0 or more")
        for name, value in (("errors", errors), ("names", names), ("thresholds", rows)):
            object.__setattr__(self, name, value)

    @classmethod
    def bound(cls) -> OpenSet:
        """Return thresholds that need no fit, stricter than necessary: exact ratios reach x at most 1 / x of the time.

        Examples
        --------
        >>> round(OpenSet.bound().threshold(100, 0.01), 2)  # ln(100 / 0.01)
        9.21
        """
        errors, names = (0.5, 0.001), (1, 1000)
        rows = tuple(tuple(math.log(count / error) for count in names) for error in errors)
        return cls(errors, names, rows, 0.0, "a bound, not fitted")

    @classmethod
    def fit(cls, best: dict[int, np.ndarray], errors, margin: float = 0.0, fitted_on: str = "") -> OpenSet:
        """Fit the thresholds to strangers.

        Parameters
        ----------
        best : dict of int to sequence of numpy.ndarray
            For each number of names, the highest ratio that each stranger reached among that many, one array per
            corpus: the threshold keeps the error rate in each of them.
        errors : sequence of float
            Error rates, descending.
        margin, fitted_on
            See the class.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> best = {n: [rng.normal(0, 1, (2000, n)).max(axis=1)] for n in (1, 10, 100)}
        >>> [round(value, 1) for value in OpenSet.fit(best, [0.05]).thresholds[0]]
        [1.6, 2.5, 3.3]
        """
        names = sorted(best)
        table = [
            np.maximum.accumulate([max(np.quantile(some, 1 - error) for some in best[n]) for n in names])
            for error in errors
        ]
        return cls(tuple(errors), tuple(names), tuple(map(tuple, table)), margin, fitted_on)

    def threshold(self, names: int, error: float) -> float:
        """Return the ratio that the best of that many names must reach, extrapolated beyond the fitted numbers.

        Raises
        ------
        ValueError
            If the error rate is below the lowest one fitted, or is not a rate.
        """
        if not self.errors[-1] <= error < 1:
            raise ValueError(
                f"an error rate of {error:g} cannot be promised: expected one from {self.errors[-1]:g} to below 1"
            )
        at, known = math.log(max(1, names)), np.log(self.names)
        if at <= known[-1] or len(known) < 2:
            column = [np.interp(at, known, row) for row in self.thresholds]
        else:
            rises = [(row[-1] - row[0]) / (known[-1] - known[0]) for row in self.thresholds]
            column = [
                row[-1] + rise * (at - known[-1]) for row, rise in zip(self.thresholds, rises, strict=True)
            ]
        return float(np.interp(math.log(error), np.log(self.errors[::-1]), column[::-1]))

    def accepts(self, ratios, names: int, error: float) -> bool:
        """Return whether the name with the first of `ratios`, best first, is accepted among that many names."""
        if not len(ratios) or ratios[0] < self.threshold(names, error):
            return False
        return len(ratios) < 2 or ratios[0] - ratios[1] >= self.margin

    def save(self, path: str | Path) -> None:
        """Write the thresholds as JSON, atomically."""
        write_json(path, FORMAT, VERSION, {name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: str | Path) -> OpenSet:
        """Read what `save` wrote.

        Raises
        ------
        OSError, ValueError
            If the file cannot be read, is of another format, or holds values out of range; the message names it.
        """
        return load_fields(cls, path, FORMAT, VERSION)
