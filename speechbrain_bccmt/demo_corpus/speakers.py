"""Synthetic speakers: espeak-ng voices with individual vocal tracts, and sentences for them to say.

A speaker is a dialect of English, one of espeak-ng's voice variants (voice quality and prosody), and a vocal
tract (frequency, height and width of the formants), pitch range and rate drawn at random. The variant alone is
not enough: many differ little, and some are used by several speakers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from speechbrain_bccmt.demo_corpus import espeak

DIALECTS = ("en", "en-US", "en-US-nyc", "en-GB-scotland", "en-GB-x-rp", "en-GB-x-gbcwmd", "en-029")
# Effects rather than people.
NOT_A_PERSON = re.compile(r"robo|whisper|demonic|croak|announcer|tweaky|fast|kaukovalta", re.IGNORECASE)
# Not "breath": espeak-ng reads uninitialised memory for it, so samples differ in each process.
VOICE_QUALITY = ("klatt", "voicing", "consonants", "tone", "roughness", "flutter")
PROSODY = ("intonation", "stressAdd", "stressAmp", "stressLength")

OPENINGS = (
    "Today",
    "Before noon",
    "After the storm",
    "Last winter",
    "On Monday",
    "Near the end",
    "Every morning",
)
PEOPLE = (
    "a baker",
    "our teacher",
    "the old sailor",
    "her brother",
    "some children",
    "a young nurse",
    "my doctor",
)
VERBS = (
    "carried",
    "counted",
    "painted",
    "borrowed",
    "measured",
    "followed",
    "described",
    "repaired",
    "noticed",
)
ADJECTIVES = (
    "yellow",
    "broken",
    "wooden",
    "quiet",
    "heavy",
    "shiny",
    "curious",
    "narrow",
    "frozen",
    "gentle",
)
THINGS = (
    "boxes",
    "ladders",
    "bicycles",
    "mirrors",
    "pumpkins",
    "letters",
    "engines",
    "chairs",
    "horses",
    "clocks",
)
PLACES = (
    "by the harbour",
    "in the garden",
    "behind our house",
    "at the station",
    "under the bridge",
    "on a hill",
)
NUMBERS = ("two", "three", "five", "seven", "nine", "eleven", "twelve", "twenty", "fifty", "eighty")


@dataclass(frozen=True)
class Speaker:
    """A synthetic speaker: the properties that stay the same in all sessions.

    Parameters
    ----------
    id : str
        Identity in VoxCeleb's style, such as ``id10001``.
    sex : str
        ``"f"`` or ``"m"``.
    split : str
        ``"train"`` or ``"test"``.
    dialect : str
        Name of espeak-ng's language file.
    variant : str
        Name of the espeak-ng voice variant, which sets voice quality and prosody.
    pitch : float
        Lower end of the pitch range in Hz.
    pitch_span : float
        Upper end of the pitch range as a factor of `pitch`.
    rate : float
        Words per minute.
    formants : tuple of tuple of float
        Frequency, height and width of formants 0 to 8, in per cent of espeak-ng's standard voice.
    """

    id: str
    sex: str
    split: str
    dialect: str
    variant: str
    pitch: float
    pitch_span: float
    rate: float
    formants: tuple[tuple[float, float, float], ...]


def draw_speakers(count: int, train_count: int, seed: int) -> list[Speaker]:
    """Draw the speakers of a corpus; the first k are the same whatever `count` is.

    Parameters
    ----------
    count : int
        Number of speakers.
    train_count : int
        Number of them, from the first on, for training.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of Speaker
        The speakers, women and men alternating.

    Examples
    --------
    >>> [(speaker.id, speaker.sex, speaker.split) for speaker in draw_speakers(3, train_count=2, seed=1)]
    [('id10001', 'f', 'train'), ('id10002', 'm', 'train'), ('id10003', 'f', 'test')]
    """
    variants = _variants()
    speakers = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        sex = "fm"[index % 2]
        variant = str(rng.choice(sorted(variants[sex])))
        tract = rng.normal(1.0, 0.05)
        base = _variant_formants(variant)
        spread = np.stack(
            [rng.normal(tract, 0.03, 9), rng.normal(1, 0.15, 9), rng.normal(1, 0.15, 9)], axis=1
        )
        formants = np.clip(base * spread, [80, 40, 60], [140, 160, 220]).round(1)
        speakers.append(
            Speaker(
                id=f"id{10001 + index}",
                sex=sex,
                split="train" if index < train_count else "test",
                dialect=str(rng.choice(DIALECTS)),
                variant=variant,
                pitch=round(rng.uniform(150, 215) if sex == "f" else rng.uniform(75, 125), 1),
                pitch_span=round(rng.uniform(1.15, 1.6), 2),
                rate=round(rng.uniform(140, 195), 1),
                formants=tuple(tuple(row) for row in formants.tolist()),
            )
        )
    return speakers


def _variants() -> dict[str, list[str]]:
    """Return the espeak-ng voice variants that can pass for a person, by sex."""
    variants: dict[str, list[str]] = {"f": [], "m": []}
    for path in sorted((espeak.data_folder() / "voices" / "!v").iterdir()):
        if not NOT_A_PERSON.search(path.name):
            text = path.read_text(encoding="utf-8", errors="replace")
            variants["f" if re.search(r"^gender\s+female", text, re.MULTILINE) else "m"].append(path.name)
    return variants


def _variant_lines(variant: str) -> list[list[str]]:
    """Read the settings of a voice variant as lists of words."""
    path = espeak.data_folder() / "voices" / "!v" / variant
    lines = (line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [words for words in lines if words]


def _variant_formants(variant: str) -> np.ndarray:
    """Return frequency, height and width of a variant's nine formants, in per cent."""
    formants = np.full((9, 3), 100.0)
    for words in _variant_lines(variant):
        if words[0] == "formant" and len(words) >= 5 and int(words[1]) < 9:
            formants[int(words[1])] = [float(word) for word in words[2:5]]
    return formants


def voice_file(speaker: Speaker, rng: np.random.Generator) -> str:
    """Write the espeak-ng voice of one session: the speaker, in today's mood.

    Parameters
    ----------
    speaker : Speaker
        The speaker.
    rng : np.random.Generator
        Source of the session's small changes in pitch and formants.

    Returns
    -------
    str
        Text of a voice file.
    """
    language = espeak.data_folder() / "lang" / "gmw" / speaker.dialect
    text = language.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("pitch")]
    kept = VOICE_QUALITY + PROSODY
    lines += [" ".join(words) for words in _variant_lines(speaker.variant) if words[0] in kept]
    pitch = speaker.pitch * 2 ** rng.normal(0, 1 / 12)
    lines.append(f"pitch {round(pitch)} {round(pitch * speaker.pitch_span * rng.uniform(0.95, 1.05))}")
    for index, (frequency, height, width) in enumerate(speaker.formants):
        moved = frequency * rng.normal(1, 0.012)
        lines.append(f"formant {index} {round(moved)} {round(height)} {round(width)}")
    return "\n".join(lines) + "\n"


def sentence(rng: np.random.Generator) -> str:
    """Generate a sentence from a small grammar.

    Parameters
    ----------
    rng : np.random.Generator
        Source of the choice.

    Returns
    -------
    str
        Eight to eleven words.

    Examples
    --------
    >>> sentence(np.random.default_rng(0))
    'Near the end some children measured five quiet boxes by the harbour.'
    """
    parts = (OPENINGS, PEOPLE, VERBS, NUMBERS, ADJECTIVES, THINGS, PLACES)
    opening, *rest = (str(rng.choice(part)) for part in parts)
    return f"{opening} {' '.join(rest)}."
