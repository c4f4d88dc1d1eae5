"""Drawing trial lists that make a fair, or a hard, test of a system."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from speechbrain_bccmt.trials.trial_list import Trials, utterance_id


def _target_pairs(members: np.ndarray, sessions: np.ndarray) -> np.ndarray:
    """Return (pairs, 2): a speaker's pairs from different sessions, or all pairs if there is one session."""
    pairs = members[np.stack(np.triu_indices(len(members), k=1), axis=1)]
    across = pairs[sessions[pairs[:, 0]] != sessions[pairs[:, 1]]]
    return across if len(across) else pairs


def _opponents(
    group: np.ndarray | None, means: np.ndarray | None, nearest: int, speakers: int
) -> list[np.ndarray] | None:
    """Return the speakers that each speaker may meet in a non-target trial: (speakers,) arrays; None for all.

    These are of the same group; with mean embeddings, only the `nearest` most similar of them.
    """
    if group is None and means is None:
        return None
    opponents = []
    for speaker in range(speakers):
        allowed = np.ones(speakers, dtype=bool) if group is None else group == group[speaker]
        allowed[speaker] = False
        others = np.flatnonzero(allowed)
        if means is not None:
            others = others[np.argsort(-(means[others] @ means[speaker]), kind="stable")[:nearest]]
        opponents.append(others)
    return opponents


def _speaker_means(embeddings, members: list[np.ndarray]) -> np.ndarray:
    """Return the mean embedding of each speaker, of unit length, (speakers, size)."""
    # Imported here because `scoring` imports trial lists.
    from speechbrain_bccmt.scoring.vectors import unit_length

    embeddings = unit_length(embeddings)
    return unit_length(
        np.stack([embeddings[rows].mean(axis=0) for rows in members]), "speaker's mean embedding"
    )


def _draw_nontargets(
    speaker: np.ndarray, members: list[np.ndarray], count: int, rng, opponents: list[np.ndarray] | None = None
) -> np.ndarray:
    """Return up to `count` distinct (enrolment, test) pairs of two speakers, speakers equally likely."""
    sizes = np.array([len(rows) for rows in members])
    if opponents is None:
        total = (len(speaker) ** 2 - (sizes**2).sum()) // 2
    else:
        # Each pair of speakers once, though either may be the other's opponent.
        meetings = np.concatenate([np.stack([np.full_like(o, s), o], 1) for s, o in enumerate(opponents)])
        meetings = np.unique(np.sort(meetings, axis=1), axis=0)
        total = int((sizes[meetings[:, 0]] * sizes[meetings[:, 1]]).sum())
    if total <= 4 * count:  # few to choose from: drawing at random would mostly repeat itself
        pairs = np.stack(np.triu_indices(len(speaker), k=1), axis=1)
        who = np.sort(speaker[pairs], axis=1)
        if opponents is None:
            pairs = pairs[who[:, 0] != who[:, 1]]
        else:
            n = len(members)
            pairs = pairs[np.isin(who @ [n, 1], meetings @ [n, 1])]
        return rng.permutation(pairs)[:count]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    pool = np.concatenate(members)
    drawn = np.empty((0, 2), dtype=np.int64)
    while len(drawn) < count:
        if opponents is None:
            who = rng.integers(len(members), size=(2 * count, 2))
            who = who[who[:, 0] != who[:, 1]]
        else:
            # In turn, so that each speaker comes up equally often.
            having = np.flatnonzero([len(others) > 0 for others in opponents])
            first = np.resize(rng.permutation(having), 2 * count)
            second = [opponents[s][rng.integers(len(opponents[s]))] for s in first]
            who = np.stack([first, second], axis=1)
        pairs = np.sort(pool[starts[who] + rng.integers(sizes[who])], axis=1)
        drawn = np.concatenate([drawn, pairs])
        drawn = drawn[np.sort(np.unique(drawn, axis=0, return_index=True)[1])]
    return drawn[:count]


def make_trials(
    ids: Sequence[str],
    speakers: Sequence[str],
    targets: int,
    nontargets: int,
    seed: int,
    sessions: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    embeddings=None,
    nearest: int = 5,
) -> Trials:
    """Draw a random trial list in which every speaker has the same weight.

    Target trials are spread evenly over the speakers, and are between sessions if a speaker has several (two chunks of
    one recording are too easy). No pair occurs twice, in either order.

    Parameters
    ----------
    ids, speakers : sequence of str
        The utterances and the speaker of each.
    targets, nontargets : int
        How many of each to draw; all if there are fewer.
    seed : int
        The same seed and utterances give the same list, whatever the order of the utterances.
    sessions : sequence of str, optional
        The recording each utterance is from. Default: the folder part of its id.
    groups : sequence of str, optional
        The group of each utterance's speaker, such as the gender: non-target trials stay within it. Default: any two
        speakers.
    embeddings : array_like, optional
        (utterances, size), one embedding per utterance: makes the list *hard*. A speaker only meets the `nearest`
        speakers most similar to it, by the cosine of mean embeddings; these come from the system under test or from any
        other.
    nearest : int
        Number of most similar speakers, at least 1.

    Returns
    -------
    Trials
        Target and non-target trials in random order.

    Raises
    ------
    ValueError
        If no speaker has two utterances (no target trial), there is one speaker (no non-target trial) or one per group,
        a speaker is in two groups, or `nearest` is below 1.

    Examples
    --------
    >>> ids = [f"{speaker}/{session}/{n}" for speaker in "abc" for session in "xy" for n in range(4)]
    >>> trials = make_trials(ids, [i[0] for i in ids], targets=12, nontargets=12, seed=1)
    >>> len(trials), int(trials.target.sum())
    (24, 12)
    """
    if nearest < 1:
        raise ValueError(f"nearest is {nearest}, expected at least 1 speaker")
    for name, column in (("speakers", speakers), ("sessions", sessions), ("groups", groups)):
        if column is not None and len(column) != len(ids):
            raise ValueError(f"{len(column)} {name} for {len(ids)} utterances: expected as many")
    order = np.argsort(np.array(ids, dtype=object))
    ids = [ids[i] for i in order]
    names, speaker = np.unique(np.array([speakers[i] for i in order], dtype=str), return_inverse=True)
    if sessions is None:
        folders = [utterance.rpartition("/")[0] for utterance in ids]
    else:
        folders = [sessions[i] for i in order]
    session = np.unique(np.array(folders, dtype=str), return_inverse=True)[1]
    members = [np.flatnonzero(speaker == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)

    choices = [rng.permutation(_target_pairs(rows, session)) for rows in members if len(rows) > 1]
    if not choices:
        raise ValueError("no target trial can be drawn: no speaker has two utterances")
    if len(names) < 2:
        raise ValueError(f"no non-target trial can be drawn: the only speaker is {names[0]}")
    group = None if groups is None else _group_of_speakers([groups[i] for i in order], members, names)
    means = None
    if embeddings is not None:
        if len(embeddings) != len(ids):
            raise ValueError(f"{len(embeddings)} embeddings for {len(ids)} utterances: expected as many")
        means = _speaker_means(embeddings[order], members)
    # The first trial of each speaker, then the second of each, ...: even shares, whoever runs out.
    turn = np.concatenate([np.arange(len(pairs)) for pairs in choices])
    same = np.concatenate(choices)[np.argsort(turn, kind="stable")[:targets]]
    different = _draw_nontargets(
        speaker, members, nontargets, rng, _opponents(group, means, nearest, len(names))
    )

    pairs = rng.permuted(np.concatenate([same, different]), axis=1)  # either may be the enrolment
    target = np.arange(len(pairs)) < len(same)
    shuffle = rng.permutation(len(pairs))
    used, indices = np.unique(pairs[shuffle], return_inverse=True)
    indices = indices.reshape(-1, 2)
    return Trials([ids[i] for i in used], indices[:, 0].copy(), indices[:, 1].copy(), target[shuffle])


def _group_of_speakers(groups: list[str], members: list[np.ndarray], names: np.ndarray) -> np.ndarray:
    """Return the group of each speaker as (speakers,) integers."""
    index = np.unique(np.array(groups, dtype=str), return_inverse=True)[1]
    for name, rows in zip(names, members, strict=True):
        if len(set(index[rows].tolist())) > 1:
            several = sorted({groups[row] for row in rows})
            raise ValueError(f"speaker {name} is in several groups: {', '.join(several)}")
    of_speaker = index[[rows[0] for rows in members]]
    if np.bincount(of_speaker).max() < 2:
        raise ValueError("no non-target trial can be drawn: each group has one speaker")
    return of_speaker


def make_trials_from_csv(
    path: str | Path,
    targets: int,
    nontargets: int,
    seed: int,
    within: str | None = None,
    embeddings=None,
    nearest: int = 5,
) -> Trials:
    """Draw a random trial list from a CSV of utterances; see `make_trials`.

    Parameters
    ----------
    path : str or Path
        A CSV with the columns `ID` (or `utterance`) and `spk_id` (or `speaker`).
    targets, nontargets : int
        How many of each to draw.
    seed : int
        The same seed and utterances give the same list.
    within : str, optional
        A column, such as `gender`: both speakers of a non-target trial have the same value in it.
    embeddings : array_like, optional
        (rows of the CSV, size): makes the list hard, see `make_trials`.
    nearest : int
        Number of speakers that a hard list compares each speaker with.

    Returns
    -------
    Trials
        Target and non-target trials in random order.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If a column is missing or an utterance occurs twice, and as for `make_trials`.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "utterances.csv"
    >>> rows = [f"{s}/x/{n}.wav,{s},{'mf'[s in 'ab']}" for s in "abcd" for n in range(3)]
    >>> _ = path.write_text("\\n".join(["utterance,speaker,gender", *rows]))
    >>> trials = make_trials_from_csv(path, targets=4, nontargets=4, seed=0, within="gender")
    >>> int((~trials.target).sum())
    4
    """
    ids, speakers, groups = read_speakers(path, within)
    return make_trials(ids, speakers, targets, nontargets, seed, None, groups, embeddings, nearest)


def read_speakers(
    path: str | Path, within: str | None = None
) -> tuple[list[str], list[str], list[str] | None]:
    """Read ids, speakers and groups from a CSV of utterances; see `make_trials_from_csv`."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        wanted = [("ID", "utterance"), ("spk_id", "speaker"), *([(within,)] if within else [])]
        found = [next((name for name in names if name in columns), None) for names in wanted]
        for name, names in zip(found, wanted, strict=True):
            if name is None:
                raise ValueError(f"{path} has no column {' or '.join(names)}: it has {', '.join(columns)}")
        rows = list(reader)
    ids = [utterance_id(row[found[0]]) for row in rows]
    if len(set(ids)) < len(ids):
        repeated = sorted(ids)
        name = next(a for a, b in zip(repeated, repeated[1:], strict=False) if a == b)
        raise ValueError(f"{path} names the utterance {name} more than once")
    groups = [row[found[2]] for row in rows] if within else None
    speakers = [row[found[1]] for row in rows]
    return ids, speakers, groups
