"""A small corpus of synthetic speakers in VoxCeleb's own layout, for the demo, the tests and newcomers.

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
import json
import math
import multiprocessing
import os
import shutil
import sys
from dataclasses import asdict, dataclass
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
    _claim(folder, settings)
    if trial_list.is_file():
        return trial_list
    speakers = draw_speakers(settings.speakers, settings.train_speakers, settings.seed)
    missing = [speaker for speaker in speakers if not (folder / "wav" / speaker.id).is_dir()]
    # The library keeps state between sentences, so each speaker gets a process of its own. A fork server does
    # the imports once, the caller's script included; where there is none (Windows), each process imports for itself.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["__main__", __spec__.name])
    work = partial(_make_speaker, folder=folder, settings=settings)
    with context.Pool(processes or os.cpu_count(), maxtasksperchild=1) as pool:
        done = pool.imap_unordered(work, missing)
        for _ in tqdm(done, total=len(missing), desc="demo corpus", unit="speaker", disable=not progress):
            pass
    shutil.rmtree(folder / "partial", ignore_errors=True)
    write_together(
        {folder / "meta" / "speakers.csv": _speaker_table(speakers)},
        trial_list,
        _trial_text(speakers, settings),
    )
    return trial_list


def _claim(folder: Path, settings: DemoCorpusSettings) -> None:
    """Note the settings in a new folder; refuse one that holds something else."""
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
    """Make all utterances of a speaker; its folder appears under ``wav`` only when they are all there."""
    partial_folder = folder / "partial" / speaker.id
    shutil.rmtree(partial_folder, ignore_errors=True)
    for session in range(1, settings.sessions + 1):
        session_folder = partial_folder / f"s{session:02d}"
        session_folder.mkdir(parents=True)
        rng = np.random.default_rng([settings.seed, int(speaker.id[2:]), session])
        channel = Channel.draw(rng)
        voice = voice_file(speaker, rng)
        rate = speaker.rate * rng.uniform(0.88, 1.12)
        for utterance in range(1, settings.utterances + 1):
            speech = espeak.synthesize(sentence(rng), voice, round(rate))
            divisor = math.gcd(SAMPLE_RATE, espeak.SAMPLE_RATE)
            speech = resample_poly(speech, SAMPLE_RATE // divisor, espeak.SAMPLE_RATE // divisor)
            recording = channel.apply(speech, rng)
            sf.write(session_folder / f"{utterance:05d}.wav", recording, SAMPLE_RATE, subtype="PCM_16")
    (folder / "wav").mkdir(exist_ok=True)
    os.replace(partial_folder, folder / "wav" / speaker.id)


def _speaker_table(speakers: list[Speaker]) -> str:
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
    defaults = DemoCorpusSettings()
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_bccmt.data.demo_corpus",
        description="Make a small corpus of synthetic speakers in VoxCeleb's layout, with a trial list.",
    )
    parser.add_argument("folder", type=Path, help="where the corpus goes")
    for name, meaning in (
        ("speakers", "number of speakers; a quarter is held out for the trials"),
        ("sessions", "sessions of each speaker, each with its own channel"),
        ("utterances", "sentences of each session"),
        ("targets", "target trials at most; four times as many non-targets"),
        ("seed", "seed of everything"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=getattr(defaults, name), help=f"{meaning} (%(default)s)"
        )
    options = vars(parser.parse_args(arguments))
    folder = options.pop("folder")
    try:
        trial_list = make_demo_corpus(folder, DemoCorpusSettings(**options))
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"utterances: {folder / 'wav'}\ntrials:     {trial_list}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
