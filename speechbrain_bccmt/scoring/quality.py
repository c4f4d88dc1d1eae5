"""Quality measures of recordings: how much speech they hold, in which band, and how their embeddings lie."""

from collections.abc import Sequence

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.scoring.norms import cohort_statistics

# The telephone band ends at 3.4 kHz, audio sampled at 8 kHz at 4; resampling filters widen it. Of the speech of seven
# corpora, 96 and 99 % stay below this through A-law and GSM, and 5 % as it is, most of which is narrow.
NARROW_HZ = 5000.0


def quality_measures(
    durations=None, embeddings=None, cohort=None, top_n: int | None = None, counts=None, bandwidths=None
) -> dict:
    """Compute the quality measures that usually help; each argument given adds one.

    Parameters
    ----------
    durations : array_like or None
        Seconds of speech of each utterance, (N,), positive; their logarithm is the measure.
    embeddings : array_like or None
        (N, D), before length norm: their norm is a measure, as many networks give unfamiliar speech a smaller one.
    cohort : array_like or None
        Embeddings of other speakers, (C, D); needs `embeddings`. The mean cosine with them is a measure.
    top_n : int or None
        How many of the highest cohort scores count; all if None.
    counts : array_like or None
        Number of utterances of each side, (N,), at least 1; their logarithm is the measure.
    bandwidths : array_like or None
        Highest frequency at which each holds sound, (N,), in Hz; whether it is narrow, as on a telephone, is the
        measure.

    Returns
    -------
    dict of str to numpy.ndarray
        `log_duration`, `embedding_norm`, `cohort_mean`, `log_utterances` and `narrow`, (N,) each, where given.

    Raises
    ------
    ValueError
        If nothing is given, a duration or a bandwidth is not positive, or embeddings or cohort are not usable.

    Examples
    --------
    >>> measures = quality_measures([1.0, 4.0], [[3.0, 4.0], [0.0, 1.0]], np.eye(2))
    >>> {name: values.round(2).tolist() for name, values in measures.items()}
    {'log_duration': [0.0, 1.39], 'embedding_norm': [5.0, 1.0], 'cohort_mean': [0.7, 0.5]}
    """
    measures = {}
    if durations is not None:
        durations = as_array(durations, np.float64)
        wrong = np.flatnonzero(~((durations > 0) & (durations < np.inf)))
        if wrong.size:
            raise ValueError(
                f"{wrong.size} of {durations.size} durations are no positive numbers of seconds, first number "
                f"{wrong[0]}: {durations[wrong[0]]}"
            )
        measures["log_duration"] = np.log(durations)
    if embeddings is not None:
        measures["embedding_norm"] = np.linalg.norm(as_array(embeddings, np.float64), axis=1)
    if cohort is not None:
        if embeddings is None:
            raise ValueError("the cohort needs the utterances' embeddings beside it")
        measures["cohort_mean"], _ = cohort_statistics(embeddings, cohort, top_n)
    if counts is not None:
        counts = as_array(counts, np.float64)
        if not (counts >= 1).all():
            raise ValueError(f"a side has {counts.min():g} utterances, expected 1 or more")
        measures["log_utterances"] = np.log(counts)
    if bandwidths is not None:
        bandwidths = as_array(bandwidths, np.float64)
        if not (bandwidths > 0).all():
            raise ValueError(f"a bandwidth is {bandwidths.min():g} Hz, expected a positive one")
        measures["narrow"] = (bandwidths <= NARROW_HZ).astype(np.float64)
    if not measures:
        raise ValueError("no quality measure: give durations, embeddings, or embeddings and a cohort")
    return measures


def side_quality(seconds: Sequence[float], bandwidths: Sequence[float] | None = None) -> dict[str, float]:
    """Compute the measures of one side of a verification that a model's calibration may need.

    Parameters
    ----------
    seconds : sequence of float
        Speech in each utterance; the sum must be positive.
    bandwidths : sequence of float or None
        Highest frequency at which each holds sound, in Hz; NaN if unknown.

    Returns
    -------
    dict of str to float
        For `QualityFusion.at`: `log_duration` of the sum, `log_utterances`, and `narrow`, the share of narrow ones
        among those of known band (0 if there are none).

    Examples
    --------
    >>> {name: round(value, 3) for name, value in side_quality([1.0, 2.0], [8000.0, 4000.0]).items()}
    {'log_duration': 1.099, 'log_utterances': 0.693, 'narrow': 0.5}
    """
    bandwidths = np.asarray([] if bandwidths is None else bandwidths, dtype=np.float64)
    known = bandwidths[~np.isnan(bandwidths)]
    narrow = quality_measures(bandwidths=known)["narrow"].mean() if len(known) else 0.0
    measures = quality_measures([np.sum(seconds)], counts=[np.size(seconds)])
    return {name: float(value[0]) for name, value in measures.items()} | {"narrow": float(narrow)}
