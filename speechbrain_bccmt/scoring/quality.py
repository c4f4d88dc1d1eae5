"""What is known of the quality of recordings: how much speech they hold, in which band, and how they lie."""

from collections.abc import Sequence

import numpy as np

from speechbrain_bccmt.arrays import as_array
from speechbrain_bccmt.scoring.norms import cohort_statistics

# A telephone's band ends at 3.4 kHz, a rate of 8 kHz at 4; filters of resamplers spread it. Of speech of seven corpora
# through A-law and GSM 96 and 99 % stay below this, of the speech itself 5 %, most of which is narrow.
NARROW_HZ = 5000.0


def quality_measures(
    durations=None, embeddings=None, cohort=None, top_n: int | None = None, counts=None, bandwidths=None
) -> dict:
    """Measure utterances in the ways that usually help; each part that is given adds a measure.

    Parameters
    ----------
    durations : array_like or None
        Seconds of speech of each utterance, (N,), positive; their logarithm is the measure.
    embeddings : array_like or None
        (N, D), before length norm: their norm is a measure, as many networks shorten what they do not know.
    cohort : array_like or None
        Embeddings of other speakers, (C, D); needs `embeddings`. The mean cosine with them is a measure.
    top_n : int or None
        How many of the highest cohort scores count; all if None.
    counts : array_like or None
        Number of utterances of each side, (N,), from 1 on; their logarithm is the measure.
    bandwidths : array_like or None
        Up to which frequency each holds sound, (N,), in Hz: whether it is narrow, as a telephone's, is the measure.

    Returns
    -------
    dict of str to numpy.ndarray
        `log_duration`, `embedding_norm`, `cohort_mean`, `log_utterances` and `narrow`, (N,) each, as far as given.

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
    """Measure one side of a verification as the calibration of a model may ask for it.

    Parameters
    ----------
    seconds : sequence of float
        Speech of each utterance, positive in all.
    bandwidths : sequence of float or None
        Up to which frequency each holds sound, in Hz; NaN: not known.

    Returns
    -------
    dict of str to float
        `log_duration` of all, `log_utterances`, and `narrow`, the share of those whose band is known, 0 where none is,
        for `QualityFusion.at`.

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
