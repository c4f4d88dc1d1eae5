"""The demo corpus for text-dependent verification: the same phrases, said by all speakers in several takes.

Speakers and channels are those of `demo_corpus`. Each take of a speaker is a session: one mood and one channel
for all phrases. The held-out quarter of the speakers enrols with the first three takes of each phrase, and is
tested with the later ones, in trials of the four types, with impostors of the same sex.

::

    OUT/wav/id10001/open_the_window/01.wav  16 kHz, 16 bit, mono
    OUT/meta/demo_corpus.json               the settings
    OUT/meta/speakers.csv                   what each speaker is made of
    OUT/meta/utterances.csv                 utterance,speaker,phrase,take,sex
    OUT/meta/model_enrollment.txt           model-id phrase-id enroll-file-id1 enroll-file-id2 enroll-file-id3
    OUT/meta/trials.txt                     model-id evaluation-file-id trial-type, written last

    python -m speechbrain_bccmt.demo_corpus OUT --phrases 10

Everything follows from the seed: the same settings give the same bytes, whatever the number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speechbrain_bccmt.corpora.layout import AudioFile
from speechbrain_bccmt.corpora.phrase_trials import make_phrase_trials
from speechbrain_bccmt.corpora.phrases import PhraseUtterance
from speechbrain_bccmt.demo_corpus import espeak
from speechbrain_bccmt.demo_corpus.session import (
    Session,
    claim_folder,
    speaker_folder,
    speaker_table,
    synthesise_speakers,
)
from speechbrain_bccmt.demo_corpus.speakers import Speaker, draw_speakers
from speechbrain_bccmt.files import write_together
from speechbrain_bccmt.trials.write import format_models, format_trials

ENROLMENT = 3
# Some share words, so the first word does not identify the phrase.
PHRASES = (
    "open the window",
    "close the window",
    "turn on the radio",
    "turn off the heating",
    "call my brother",
    "call the office",
    "play some music",
    "read my messages",
    "lock the front door",
    "wake me at seven",
    "open the garage",
    "what time is it",
    "start the washing machine",
    "set the alarm",
    "stop the music",
    "show me the weather",
    "dim the lights",
    "send the report",
    "find my keys",
    "cancel the meeting",
)


@dataclass(frozen=True)
class DemoPhraseSettings:
    """Settings of a phrase-based demo corpus: equal settings give equal bytes.

    Parameters
    ----------
    speakers : int
        Number of speakers, half of them women. The first three quarters are for training.
    phrases : int
        Number of phrases, one to two seconds each.
    takes : int
        How often each speaker says each phrase; the first three are for enrolment.
    trials : int
        Maximum number of trials, divided evenly among the four types.
    seed : int
        Seed of everything.
    """

    speakers: int = 40
    phrases: int = 10
    takes: int = 6
    trials: int = 4000
    seed: int = 1234

    def __post_init__(self) -> None:
        """Reject settings that leave a type without trials."""
        if self.speakers < 16:
            raise ValueError(
                f"speakers must be at least 16 (two of each sex are held out), got {self.speakers}"
            )
        if not 2 <= self.phrases <= len(PHRASES):
            raise ValueError(f"phrases must be 2 to {len(PHRASES)}, got {self.phrases}")
        if self.takes <= ENROLMENT or self.trials < 4 or self.seed < 0:
            raise ValueError(
                f"takes must be more than the {ENROLMENT} that enrol, trials at least 4, and seed at least 0, got "
                f"{self.takes}, {self.trials} and {self.seed}"
            )

    @property
    def train_speakers(self) -> int:
        """Number of speakers for training; the rest are held out for the trial list."""
        return self.speakers * 3 // 4


def make_phrase_corpus(
    folder: str | Path,
    settings: DemoPhraseSettings | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Path:
    """Make the phrase-based demo corpus, or finish an interrupted one; a complete one is left as it is.

    Parameters
    ----------
    folder : str or Path
        Where the corpus goes.
    settings : DemoPhraseSettings, optional
        Size and seed.
    processes : int, optional
        Number of parallel synthesis processes; by default one per CPU. The result is the same.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The trial list, ``folder/meta/trials.txt``.

    Raises
    ------
    ModuleNotFoundError
        If ``espeakng-loader`` is not installed.
    FileExistsError
        If the folder holds a corpus with other settings, or other files.
    """
    espeak.data_folder()
    settings = settings or DemoPhraseSettings()
    folder = Path(folder)
    meta = folder / "meta"
    claim_folder(folder, settings)
    if (meta / "trials.txt").is_file():
        return meta / "trials.txt"
    speakers = draw_speakers(settings.speakers, settings.train_speakers, settings.seed)
    work = partial(_make_speaker, folder=folder, settings=settings)
    synthesise_speakers(speakers, work, folder, processes, progress)
    said = _utterances(speakers, settings)
    held_out = {speaker.id for speaker in speakers if speaker.split == "test"}
    tested = {name: utterance for name, utterance in said.items() if utterance.speaker in held_out}
    trials = make_phrase_trials(tested, settings.trials, settings.seed, ENROLMENT)
    contents = {
        meta / "speakers.csv": speaker_table(speakers),
        meta / "utterances.csv": _utterance_table(said),
        meta / "model_enrollment.txt": format_models(trials),
    }
    write_together(contents, meta / "trials.txt", format_trials(trials, "sdsv"))
    return meta / "trials.txt"


def _name(phrase: str) -> str:
    return phrase.replace(" ", "_")


def _make_speaker(speaker: Speaker, folder: Path, settings: DemoPhraseSettings) -> None:
    """Make all takes of a speaker."""
    with speaker_folder(speaker, folder) as unfinished:
        for phrase in PHRASES[: settings.phrases]:
            (unfinished / _name(phrase)).mkdir()
        for take in range(1, settings.takes + 1):
            session = Session.draw(speaker, settings.seed, take)
            for phrase in PHRASES[: settings.phrases]:
                session.record(f"{phrase}.", unfinished / _name(phrase) / f"{take:02d}.wav")


def _utterances(speakers: list[Speaker], settings: DemoPhraseSettings) -> dict[str, PhraseUtterance]:
    """List who says what, by path inside ``wav`` without extension."""
    return {
        f"{speaker.id}/{_name(phrase)}/{take:02d}": PhraseUtterance(
            AudioFile("", 0, 0), speaker.id, _name(phrase), speaker_group=speaker.sex
        )
        for speaker in speakers
        for phrase in PHRASES[: settings.phrases]
        for take in range(1, settings.takes + 1)
    }


def _utterance_table(said: dict[str, PhraseUtterance]) -> str:
    rows = ["utterance,speaker,phrase,take,sex"]
    for name, utterance in said.items():
        take = name.rpartition("/")[2]
        rows.append(f"{name}.wav,{utterance.speaker},{utterance.phrase},{take},{utterance.speaker_group}")
    return "\n".join(rows) + "\n"
