"""A small corpus of synthetic speakers in VoxCeleb's own layout, for the demo, the tests and newcomers.

`demo_phrases` makes one of the same speakers for text-dependent verification.

Each speaker is a separate espeak-ng voice: a dialect of English, one of espeak-ng's voice variants, and a vocal
tract, pitch and rate drawn at random. Each session varies what differs between two recordings of one person:
mood (pitch, rate, a per cent or two of the formants) and channel (equaliser, bandwidth, room, noise, level).
Target trials pair different sessions, and non-target trials pair speakers of the same sex, so neither the
channel nor the pitch range alone gives the answer.

::

    OUT/wav/id10001/s01/00001.wav  16 kHz, 16 bit, mono
    OUT/meta/demo_corpus.json      the settings
    OUT/meta/speakers.csv          what each speaker is made of
    OUT/meta/veri_test.txt         trials of the held-out speakers, written last; label first:
                                   1 id10061/s01/00001.wav id10061/s03/00002.wav

Everything follows from the seed: the same settings give the same bytes, whatever the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from speechbrain_bccmt.demo_corpus import espeak
from speechbrain_bccmt.demo_corpus.session import (
    Session,
    claim_folder,
    speaker_folder,
    speaker_table,
    synthesise_speakers,
)
from speechbrain_bccmt.demo_corpus.speakers import Speaker, draw_speakers, sentence
from speechbrain_bccmt.files import write_together

NONTARGETS_PER_TARGET = 4


@dataclass(frozen=True)
class DemoCorpusSettings:
    """Settings of a demo corpus: equal settings give equal bytes.

    Parameters
    ----------
    speakers : int
        Number of speakers, half of them women. The first three quarters are for training.
    sessions : int
        Sessions (recordings with their own channel) per speaker.
    utterances : int
        Sentences per session, 2 to 6 seconds each.
    targets : int
        Maximum number of target trials; there are four times as many non-targets.
    seed : int
        Seed of everything.
    """

    speakers: int = 80
    sessions: int = 4
    utterances: int = 6
    targets: int = 2000
    seed: int = 1234

    def __post_init__(self) -> None:
        """Reject settings that give no trials."""
        if self.speakers < 16:
            raise ValueError(
                f"speakers must be at least 16 (two of each sex are held out), got {self.speakers}"
            )
        if self.sessions < 2 or self.utterances < 1 or self.targets < 1 or self.seed < 0:
            raise ValueError(
                "sessions must be at least 2, utterances and targets at least 1, and seed at least 0, got "
                f"{self.sessions}, {self.utterances}, {self.targets} and {self.seed}"
            )

    @property
    def train_speakers(self) -> int:
        """Number of speakers for training; the rest are held out for the trial list."""
        return self.speakers * 3 // 4


def make_demo_corpus(
    folder: str | Path,
    settings: DemoCorpusSettings | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Path:
    """Make the demo corpus, or finish an interrupted one; a complete one is left as it is.

    Parameters
    ----------
    folder : str or Path
        Where the corpus goes.
    settings : DemoCorpusSettings, optional
        Size and seed.
    processes : int, optional
        Number of parallel synthesis processes; by default one per CPU. The result is the same.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The trial list, ``folder/meta/veri_test.txt``.

    Raises
    ------
    ModuleNotFoundError
        If ``espeakng-loader`` is not installed.
    FileExistsError
        If the folder holds a corpus with other settings, or other files.
    """
    espeak.data_folder()
    settings = settings or DemoCorpusSettings()
    folder = Path(folder)
    trial_list = folder / "meta" / "veri_test.txt"
    claim_folder(folder, settings)
    if trial_list.is_file():
        return trial_list
    speakers = draw_speakers(settings.speakers, settings.train_speakers, settings.seed)
    work = partial(_make_speaker, folder=folder, settings=settings)
    synthesise_speakers(speakers, work, folder, processes, progress)
    write_together(
        {folder / "meta" / "speakers.csv": speaker_table(speakers)},
        trial_list,
        _trial_text(speakers, settings),
    )
    return trial_list


def _make_speaker(speaker: Speaker, folder: Path, settings: DemoCorpusSettings) -> None:
    """Make all utterances of a speaker."""
    with speaker_folder(speaker, folder) as unfinished:
        for number in range(1, settings.sessions + 1):
            (unfinished / f"s{number:02d}").mkdir()
            session = Session.draw(speaker, settings.seed, number)
            for utterance in range(1, settings.utterances + 1):
                text = sentence(session.rng)
                session.record(text, unfinished / f"s{number:02d}" / f"{utterance:05d}.wav")


def _trial_text(speakers: list[Speaker], settings: DemoCorpusSettings) -> str:
    """Draw the held-out speakers' trials: targets across sessions, non-targets within a sex."""
    rng = np.random.default_rng(settings.seed)
    utterances = [
        (speaker, session, f"{speaker.id}/s{session:02d}/{utterance:05d}.wav")
        for speaker in speakers
        if speaker.split == "test"
        for session in range(1, settings.sessions + 1)
        for utterance in range(1, settings.utterances + 1)
    ]
    pairs = list(combinations(utterances, 2))
    targets = [(a[2], b[2]) for a, b in pairs if a[0] is b[0] and a[1] != b[1]]
    nontargets = [(a[2], b[2]) for a, b in pairs if a[0] is not b[0] and a[0].sex == b[0].sex]
    count = min(settings.targets, len(targets), len(nontargets) // NONTARGETS_PER_TARGET)
    trials = [(1, *targets[i]) for i in rng.choice(len(targets), count, replace=False)]
    trials += [
        (0, *nontargets[i]) for i in rng.choice(len(nontargets), NONTARGETS_PER_TARGET * count, replace=False)
    ]
    return "".join(f"{label} {enrol} {test}\n" for label, enrol, test in trials)
