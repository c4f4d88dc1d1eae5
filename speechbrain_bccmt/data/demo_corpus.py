"""A small corpus of synthetic speakers in VoxCeleb's own layout, for the demo, the tests and newcomers.

`demo_phrases` makes one for text-dependent verification of the same people.

Each speaker is an espeak-ng voice of its own: a dialect of English, one of the voice variants that espeak-ng
brings, and a vocal tract, pitch and rate drawn at random. Each session changes what changes between two
recordings of one person: mood (pitch, rate, a per cent or two of the formants) and channel (equaliser,
bandwidth, room, noise, level). Targets of the trial list come from different sessions, and non-targets share
the sex, so that neither the channel nor the pitch range alone gives the answer.

::

    OUT/wav/id10001/s01/00001.wav  16 kHz, 16 bit, mono
    OUT/meta/demo_corpus.json      the settings
    OUT/meta/speakers.csv          what each speaker is made of
    OUT/meta/veri_test.txt         trials of the held-out speakers, written last; label first:
                                   1 id10061/s01/00001.wav id10061/s03/00002.wav

Everything follows from the seed: the same settings give the same bytes, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy.signal import resample_poly
from tqdm import tqdm

from speechbrain_bccmt.data import espeak
from speechbrain_bccmt.data.atomic import write_together
from speechbrain_bccmt.data.demo_channel import SAMPLE_RATE, Channel
from speechbrain_bccmt.data.demo_speakers import Speaker, draw_speakers, sentence, voice_file

NONTARGETS_PER_TARGET = 4


@dataclass(frozen=True)
class DemoCorpusSettings:
    """What a demo corpus follows from: equal settings give equal bytes.

    Parameters
    ----------
    speakers : int
        Number of speakers, half of them women. The first three quarters are for training.
    sessions : int
        Sessions (recordings with their own channel) of each speaker.
    utterances : int
        Sentences of each session, 2 to 6 seconds each.
    targets : int
        Target trials at most; four times as many non-targets.
    seed : int
        Seed of everything.
    """

    speakers: int = 80
    sessions: int = 4
    utterances: int = 6
    targets: int = 2000
    seed: int = 1234

    def __post_init__(self) -> None:
        """Refuse settings that give no trials."""
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
        """Number of speakers for training; the rest is held out for the trial list."""
        return self.speakers * 3 // 4


def make_demo_corpus(
    folder: str | Path,
    settings: DemoCorpusSettings | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Path:
    """Make the demo corpus, or finish one that was interrupted, or find it complete.

    Parameters
    ----------
    folder : str or Path
        Where the corpus goes.
    settings : DemoCorpusSettings, optional
        Size and seed.
    processes : int, optional
        Processes that synthesise at the same time; by default one for each CPU. The result is the same.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The trial list, ``folder/meta/veri_test.txt``.

    Raises
    ------
    ModuleNotFoundError
        Where ``espeakng-loader`` is not installed.
    FileExistsError
        Where the folder holds a corpus of other settings, or other files.
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


def synthesise_speakers(
    speakers: list[Speaker],
    make_speaker: partial,
    folder: Path,
    processes: int | None,
    progress: bool,
) -> None:
    """Make the speakers that have no folder under `wav` yet, each in a process of its own."""
    missing = [speaker for speaker in speakers if not (folder / "wav" / speaker.id).is_dir()]
    # The library keeps state between sentences, so each speaker gets a process of its own. A fork server does
    # the imports once, the caller's script included; where there is none (Windows), each process imports for itself.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        # Before Python 3.12.8 the server overlooks "__main__": each process then imports the caller's script anew,
        # which takes seconds, unless the server has what the script imports.
        loaded = [name for name in sys.modules if name.startswith("speechbrain_bccmt.")]
        context.set_forkserver_preload(["__main__", __spec__.name, make_speaker.func.__module__, *loaded])
    with context.Pool(processes or os.cpu_count(), maxtasksperchild=1) as pool:
        done = pool.imap_unordered(make_speaker, missing)
        for _ in tqdm(done, total=len(missing), desc="demo corpus", unit="speaker", disable=not progress):
            pass
    shutil.rmtree(folder / "partial", ignore_errors=True)


def claim_folder(folder: Path, settings) -> None:
    """Note the settings, a dataclass, in a new folder; refuse one that holds something else."""
    path = folder / "meta" / "demo_corpus.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != asdict(settings):
            raise FileExistsError(
                f"{folder} holds a demo corpus of other settings ({found}): "
                f"give another folder for {asdict(settings)}, or delete this one"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files: give an empty or new folder for the demo corpus")
    else:
        write_together({}, path, json.dumps(asdict(settings), indent=2) + "\n")


def _make_speaker(speaker: Speaker, folder: Path, settings: DemoCorpusSettings) -> None:
    """Make all utterances of a speaker."""
    with speaker_folder(speaker, folder) as unfinished:
        for number in range(1, settings.sessions + 1):
            (unfinished / f"s{number:02d}").mkdir()
            session = Session.draw(speaker, settings.seed, number)
            for utterance in range(1, settings.utterances + 1):
                text = sentence(session.rng)
                session.record(text, unfinished / f"s{number:02d}" / f"{utterance:05d}.wav")


@contextlib.contextmanager
def speaker_folder(speaker: Speaker, folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which appears under ``wav`` only when it is."""
    unfinished = folder / "partial" / speaker.id
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    (folder / "wav").mkdir(exist_ok=True)
    os.replace(unfinished, folder / "wav" / speaker.id)


@dataclass(frozen=True)
class Session:
    """A speaker on one day: a mood and a channel.

    Parameters
    ----------
    voice : str
        Text of an espeak-ng voice file.
    rate : int
        Words per minute.
    channel : Channel
        What the recordings go through.
    rng : np.random.Generator
        Source of all that differs between the utterances.
    """

    voice: str
    rate: int
    channel: Channel
    rng: np.random.Generator

    @classmethod
    def draw(cls, speaker: Speaker, seed: int, number: int) -> Session:
        """Draw a speaker's session number k."""
        rng = np.random.default_rng([seed, int(speaker.id[2:]), number])
        channel = Channel.draw(rng)
        voice = voice_file(speaker, rng)
        return cls(voice, round(speaker.rate * rng.uniform(0.88, 1.12)), channel, rng)

    def record(self, text: str, path: Path) -> None:
        """Say a text and write the recording."""
        speech = espeak.synthesize(text, self.voice, self.rate)
        divisor = math.gcd(SAMPLE_RATE, espeak.SAMPLE_RATE)
        speech = resample_poly(speech, SAMPLE_RATE // divisor, espeak.SAMPLE_RATE // divisor)
        sf.write(path, self.channel.apply(speech, self.rng), SAMPLE_RATE, subtype="PCM_16")


def speaker_table(speakers: list[Speaker]) -> str:
    """Give the table of the speakers as CSV."""
    columns = ("id", "sex", "split", "dialect", "variant", "pitch", "pitch_span", "rate")
    rows = [columns, *([str(getattr(speaker, column)) for column in columns] for speaker in speakers)]
    return "".join(",".join(row) + "\n" for row in rows)


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


def main(arguments: list[str] | None = None) -> int:
    """Make the demo corpus from the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Command-line arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 2 where the corpus cannot be made as asked.
    """
    # Here, as that module needs this one.
    from speechbrain_bccmt.data.demo_phrases import DemoPhraseSettings, make_phrase_corpus

    defaults = {**asdict(DemoPhraseSettings()), **asdict(DemoCorpusSettings()), "phrases": None}
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_bccmt.data.demo_corpus",
        description="Make a small corpus of synthetic speakers with a trial list: sentences in VoxCeleb's layout, "
        "or, with --phrases, takes of the same phrases by all, for text-dependent verification.",
    )
    parser.add_argument("folder", type=Path, help="where the corpus goes")
    phrase_group = parser.add_argument_group("with --phrases")
    for name, group, meaning in (
        ("speakers", parser, "number of speakers; a quarter is held out for the trials"),
        ("sessions", parser, "sessions of each speaker, each with its own channel"),
        ("utterances", parser, "sentences of each session"),
        ("targets", parser, "target trials at most; four times as many non-targets"),
        ("seed", parser, "seed of everything"),
        ("phrases", phrase_group, "number of phrases"),
        ("takes", phrase_group, "takes of each phrase by each speaker, each with its own channel"),
        ("trials", phrase_group, "trials at most, shared out among the four types"),
    ):
        usual = "" if defaults[name] is None else f" ({defaults[name]})"
        group.add_argument(f"--{name}", type=int, metavar="N", help=meaning + usual)
    options = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    folder = options.pop("folder")
    kind, make = DemoCorpusSettings, make_demo_corpus
    if "phrases" in options:
        kind, make = DemoPhraseSettings, make_phrase_corpus
    try:
        if strange := options.keys() - {field.name for field in fields(kind)}:
            needs = "do not go with --phrases" if "phrases" in options else "need --phrases"
            raise ValueError(f"{' and '.join(f'--{name}' for name in sorted(strange))} {needs}")
        trial_list = make(folder, kind(**options))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"utterances: {folder / 'wav'}\ntrials:     {trial_list}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
