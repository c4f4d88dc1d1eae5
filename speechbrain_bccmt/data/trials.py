"""Trial lists: which pairs of utterances to compare, and which of them share a speaker.

The format is VoxCeleb's: one trial a line, `label enrolment test`, label 1 for a target trial (one speaker)
and 0 for a non-target trial (two speakers):

    1 id10270/5r0dWxy17C8/00001.wav id10270/8jEAjG6SegY/00008.wav
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechbrain_bccmt.data.atomic import temporary_sibling

logger = logging.getLogger(__name__)

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".m4a", ".mp3", ".aac", ".sph")
_LABELS = {"1": True, "0": False}
_SHOWN = 5  # lines or names given in a message before it only counts


def utterance_id(name: str) -> str:
    r"""Return the id of an utterance: its path inside the wav folder, with "/" and without the extension.

    Only known audio extensions are removed, as an id may contain dots.

    Examples
    --------
    >>> utterance_id("id10270/5r0dWxy17C8/00001.wav")
    'id10270/5r0dWxy17C8/00001'
    >>> utterance_id(r"id10270\5r0dWxy17C8\00001.FLAC")
    'id10270/5r0dWxy17C8/00001'
    """
    name = name.replace("\\", "/").removeprefix("./")
    stem, dot, extension = name.rpartition(".")
    return stem if dot and "." + extension.lower() in AUDIO_EXTENSIONS else name


def speaker_of(utterance: str) -> str:
    """Return the speaker of an utterance id: its first folder.

    Examples
    --------
    >>> speaker_of("id10270/5r0dWxy17C8/00001")
    'id10270'
    """
    return utterance.split("/", 1)[0]


@dataclass(frozen=True)
class Trials:
    """Pairs of utterances to compare.

    Attributes
    ----------
    ids : list of str
        The utterances named, each once, in order of first appearance.
    enrol, test : numpy.ndarray
        (trials,) integers: the enrolment and the test utterance of each trial as indices into `ids`.
    target : numpy.ndarray
        (trials,) booleans: True where both utterances are of one speaker.
    """

    ids: list[str]
    enrol: np.ndarray
    test: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    @property
    def speakers(self) -> set[str]:
        """Every speaker named, in either column."""
        return {speaker_of(utterance) for utterance in self.ids}


def _shorten(complaints: list[str]) -> str:
    rest = len(complaints) - _SHOWN
    return "\n".join(["", *complaints[:_SHOWN]]) + (f"\n... and {rest} more" if rest > 0 else "")


def _numbered_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number (from 1) and fields of each line that is not blank; reads .gz too."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if fields := line.split():
                    yield number, fields
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from error


def read_trials(path: str | Path, known_ids: Collection[str] | None = None) -> Trials:
    """Read a trial list in VoxCeleb's format, plain or gzipped.

    A trial given twice counts once, with a warning that names the lines.

    Parameters
    ----------
    path : str or Path
        The list. Extensions of audio files are removed from the names, either path separator is read.
    known_ids : collection of str, optional
        The utterances there are. A line that names another one is an error.

    Returns
    -------
    Trials
        The trials in the order of the file.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        For malformed lines, labels other than 0 and 1, a pair given both labels, utterances not in
        `known_ids` (each with file and line number), and for a list without trials.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "trials.txt").write_text("1 a/s/1.wav a/s/2.wav\\n0 a/s/1.wav b/s/1.wav\\n")
    >>> trials = read_trials(folder / "trials.txt")
    >>> trials.ids, trials.enrol.tolist(), trials.test.tolist(), trials.target.tolist()
    (['a/s/1', 'a/s/2', 'b/s/1'], [0, 0], [1, 2], [True, False])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no trial list at {path}")
    known = None if known_ids is None else frozenset(known_ids)
    index_of_name: dict[str, int] = {}  # as spelled in the file, so that each name is parsed once
    index_of_id: dict[str, int] = {}
    first_line: dict[tuple[int, int], tuple[int, bool]] = {}
    malformed, unknown, repeated = [], [], []

    def index_of(name: str, number: int) -> int:
        index = index_of_name.get(name)
        if index is None:
            utterance = utterance_id(name)
            index = index_of_name[name] = index_of_id.setdefault(utterance, len(index_of_id))
            if known is not None and utterance not in known:
                unknown.append(f"{path}:{number}: no utterance {utterance}")
        return index

    for number, fields in _numbered_lines(path):
        if len(fields) != 3 or fields[0] not in _LABELS:
            malformed.append(f"{path}:{number}: expected `0|1 enrolment test`: {' '.join(fields):.120}")
            continue
        target = _LABELS[fields[0]]
        pair = index_of(fields[1], number), index_of(fields[2], number)
        first, label = first_line.setdefault(pair, (number, target))
        if first != number:
            if label != target:
                malformed.append(f"{path}:{number}: the pair of line {first} again, with the other label")
            else:
                repeated.append(f"{path}:{number}: repeats line {first}")
    if malformed:
        raise ValueError(f"{len(malformed)} malformed lines in a trial list:{_shorten(malformed)}")
    if unknown:
        raise ValueError(f"{len(unknown)} utterances of a trial list do not exist:{_shorten(unknown)}")
    if not first_line:
        raise ValueError(f"the trial list {path} holds no trials: expected lines `0|1 enrolment test`")
    if repeated:
        logger.warning("%d repeated trials are counted once:%s", len(repeated), _shorten(repeated))
    pairs = np.fromiter((index for pair in first_line for index in pair), np.int64, 2 * len(first_line))
    target = np.fromiter((label for _, label in first_line.values()), bool, len(first_line))
    return Trials(list(index_of_id), pairs[0::2].copy(), pairs[1::2].copy(), target)


def format_trials(trials: Trials) -> str:
    """Return the trial list as text in VoxCeleb's format, names without extension."""
    ids = trials.ids
    rows = zip(trials.target.tolist(), trials.enrol.tolist(), trials.test.tolist(), strict=True)
    return "".join(f"{int(target)} {ids[enrol]} {ids[test]}\n" for target, enrol, test in rows)


def write_trials(path: str | Path, trials: Trials) -> None:
    """Write a trial list in VoxCeleb's format, whole or not at all.

    Parameters
    ----------
    path : str or Path
        The file, replaced where it exists.
    trials : Trials
        What to write. Names are written without extension.

    Raises
    ------
    ValueError
        Where there are no trials.
    """
    if not len(trials):
        raise ValueError(f"no trials to write to {path}")
    with temporary_sibling(Path(path)) as temporary:
        temporary.write_text(format_trials(trials), encoding="utf-8")
        temporary.replace(path)


def _target_pairs(members: np.ndarray, sessions: np.ndarray) -> np.ndarray:
    """Return (pairs, 2): a speaker's pairs from different sessions, or all where there is one session."""
    pairs = members[np.stack(np.triu_indices(len(members), k=1), axis=1)]
    across = pairs[sessions[pairs[:, 0]] != sessions[pairs[:, 1]]]
    return across if len(across) else pairs


def _draw_nontargets(speaker: np.ndarray, members: list[np.ndarray], count: int, rng) -> np.ndarray:
    """Return up to `count` distinct (enrolment, test) pairs of two speakers, speakers equally likely."""
    total = (len(speaker) ** 2 - sum(len(rows) ** 2 for rows in members)) // 2
    if total <= 4 * count:  # few to choose from: drawing at random would mostly repeat itself
        pairs = np.stack(np.triu_indices(len(speaker), k=1), axis=1)
        pairs = pairs[speaker[pairs[:, 0]] != speaker[pairs[:, 1]]]
        return rng.permutation(pairs)[:count]
    sizes = np.array([len(rows) for rows in members])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    pool = np.concatenate(members)
    drawn = np.empty((0, 2), dtype=np.int64)
    while len(drawn) < count:
        who = rng.integers(len(members), size=(2 * count, 2))
        who = who[who[:, 0] != who[:, 1]]
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
) -> Trials:
    """Draw a random trial list, in which every speaker has the same weight.

    Target trials are shared out evenly among the speakers, and are taken between sessions where a speaker
    has several (two pieces of one recording are too easy). No pair occurs twice, in either order.

    Parameters
    ----------
    ids, speakers : sequence of str
        The utterances and the speaker of each.
    targets, nontargets : int
        How many to draw of each; as many as there are, where there are fewer.
    seed : int
        The same seed and utterances give the same list, whatever the order of the utterances.
    sessions : sequence of str, optional
        The recording each utterance is from. Default: the folder part of its id.

    Returns
    -------
    Trials
        Target and non-target trials in random order.

    Raises
    ------
    ValueError
        Where no speaker has two utterances (no target trial) or there is one speaker (no non-target trial).

    Examples
    --------
    >>> ids = [f"{speaker}/{session}/{n}" for speaker in "abc" for session in "xy" for n in range(4)]
    >>> trials = make_trials(ids, [speaker_of(i) for i in ids], targets=12, nontargets=12, seed=1)
    >>> len(trials), int(trials.target.sum())
    (24, 12)
    """
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
    # The first trial of each speaker, then the second of each, ...: even shares, whoever runs out.
    turn = np.concatenate([np.arange(len(pairs)) for pairs in choices])
    same = np.concatenate(choices)[np.argsort(turn, kind="stable")[:targets]]
    different = _draw_nontargets(speaker, members, nontargets, rng)

    pairs = rng.permuted(np.concatenate([same, different]), axis=1)  # either may be the enrolment
    target = np.arange(len(pairs)) < len(same)
    shuffle = rng.permutation(len(pairs))
    used, indices = np.unique(pairs[shuffle], return_inverse=True)
    indices = indices.reshape(-1, 2)
    return Trials([ids[i] for i in used], indices[:, 0].copy(), indices[:, 1].copy(), target[shuffle])
