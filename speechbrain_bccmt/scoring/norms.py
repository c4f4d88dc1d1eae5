"""Score normalisation against a cohort of other speakers, and the choice of the cohort."""

import random

import numpy as np

from speechbrain_bccmt.scoring.cosine import check_trials, unit_length

# Cohort scores held at once, 4 bytes each: 64 MB.
SCORES_PER_BLOCK = 16_000_000


def s_norm(scores, embeddings, enrol, test, cohort, top_n: int | None = None) -> np.ndarray:
    """Normalise scores symmetrically by what each side of a trial scores against a cohort.

    ((s - mean_e) / std_e + (s - mean_t) / std_t) / 2, with mean and standard deviation of the enrolment's
    and the test's cosine with the cohort (Kenny 2010; SpeechBrain's "s-norm"). With `top_n` only the highest
    cohort scores of each side count: adaptive s-norm (Matejka et al. 2017, "AS-norm 1").

    Parameters
    ----------
    scores : array_like
        Cosine scores of the trials, (M,).
    embeddings : array_like
        One embedding for each utterance, (N, D); numpy or torch.
    enrol : array_like of int
        Enrolment utterance of each trial as row of `embeddings`, (M,).
    test : array_like of int
        Test utterance of each trial, (M,).
    cohort : array_like
        Embeddings of speakers that occur in no trial, (C, D), C at least 2.
    top_n : int or None
        How many of the highest cohort scores count, at least 2; all if None or where the cohort has no more.

    Returns
    -------
    numpy.ndarray
        Normalised scores, (M,), float64.

    Raises
    ------
    ValueError
        If shapes do not fit, the cohort has less than two embeddings or gives an utterance the same score
        with all of them, or `top_n` is below 2.

    Examples
    --------
    >>> embeddings, cohort = np.eye(3), np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    >>> s_norm([0.5], embeddings, [0], [1], cohort).round(3).tolist()
    [0.07]
    """
    enrol, test = check_trials(enrol, test, len(embeddings))
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != enrol.shape:
        raise ValueError(f"scores have shape {scores.shape}, expected one a trial, {enrol.shape}")
    used, position = np.unique(np.concatenate([enrol, test]), return_inverse=True)
    mean, std = _cohort_statistics(
        unit_length(embeddings)[used], unit_length(cohort, "cohort embedding"), top_n
    )
    enrol, test = position[: len(enrol)], position[len(enrol) :]
    return ((scores - mean[enrol]) / std[enrol] + (scores - mean[test]) / std[test]) / 2


def choose_cohort(
    rows: list[dict], speakers: int | None = None, utterances: int | None = None, seed: int = 0
) -> list[dict]:
    """Choose the utterances of a cohort at random: some speakers, and some utterances of each.

    Parameters
    ----------
    rows : list of dict
        Rows of a CSV of utterances, with `spk_id`.
    speakers : int or None
        How many speakers; all if None or where there are no more.
    utterances : int or None
        How many utterances of each; all if None or where there are no more.
    seed : int
        The same seed gives the same choice.

    Returns
    -------
    list of dict
        The rows chosen, in their order.

    Raises
    ------
    ValueError
        If a number is below 1.

    Examples
    --------
    >>> rows = [{"ID": f"{speaker}{n}", "spk_id": speaker} for speaker in "abc" for n in range(4)]
    >>> [row["ID"] for row in choose_cohort(rows, speakers=2, utterances=2)]
    ['b0', 'b1', 'c1', 'c3']
    """
    for name, number in (("speakers", speakers), ("utterances", utterances)):
        if number is not None and number < 1:
            raise ValueError(f"a cohort of {number} {name}: expected at least 1")
    by_speaker: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_speaker.setdefault(row["spk_id"], []).append(index)
    generator = random.Random(seed)
    names = sorted(by_speaker)
    if speakers is not None and speakers < len(names):
        names = generator.sample(names, speakers)
    chosen = []
    for name in names:
        of_speaker = by_speaker[name]
        if utterances is not None and utterances < len(of_speaker):
            of_speaker = generator.sample(of_speaker, utterances)
        chosen += of_speaker
    return [rows[index] for index in sorted(chosen)]


def speaker_means(embeddings, speakers: list[str]) -> np.ndarray:
    """Average the embeddings of each speaker, all utterances with the same weight.

    Parameters
    ----------
    embeddings : array_like
        (N, D); numpy or torch. Their lengths do not count: each is scaled to unit length first.
    speakers : list of str
        Speaker of each embedding.

    Returns
    -------
    numpy.ndarray
        (number of speakers, D), in the order of the speakers' names.

    Raises
    ------
    ValueError
        If shapes do not fit, or an embedding is zero, NaN or infinite.

    Examples
    --------
    >>> speaker_means([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]], ["b", "a", "a"]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    embeddings = unit_length(embeddings)
    names, index, counts = np.unique(speakers, return_inverse=True, return_counts=True)
    if len(index) != len(embeddings):
        raise ValueError(f"{len(index)} speakers for {len(embeddings)} embeddings: expected as many")
    sums = np.zeros((len(names), embeddings.shape[1]), dtype=np.float32)
    np.add.at(sums, index, embeddings)
    return sums / counts[:, None].astype(np.float32)


def _cohort_statistics(embeddings: np.ndarray, cohort: np.ndarray, top_n: int | None):
    if cohort.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"the cohort's embeddings have size {cohort.shape[1]}, the trials' {embeddings.shape[1]}"
        )
    if len(cohort) < 2:
        raise ValueError(
            f"a cohort of {len(cohort)} has no standard deviation: expected at least 2 embeddings"
        )
    if top_n is not None and top_n < 2:
        raise ValueError(f"top_n is {top_n}, expected at least 2, or None for the whole cohort")
    mean, std = np.empty(len(embeddings)), np.empty(len(embeddings))
    rows = max(1, SCORES_PER_BLOCK // len(cohort))
    for start in range(0, len(embeddings), rows):
        block = slice(start, start + rows)
        cohort_scores = embeddings[block] @ cohort.T
        if top_n is not None and top_n < len(cohort):
            cohort_scores = np.partition(cohort_scores, len(cohort) - top_n, axis=1)[:, -top_n:]
        mean[block] = cohort_scores.mean(axis=1, dtype=np.float64)
        std[block] = cohort_scores.std(axis=1, dtype=np.float64, ddof=1)
    # Equal cohort scores leave nothing but float32's rounding, about 1e-7, in the standard deviation.
    if len(std) and std.min() < 1e-6:
        raise ValueError(
            "the cohort gives an utterance the same score with all its embeddings, so that scores cannot be "
            "normalised: choose different speakers, or more of them"
        )
    return mean, std
