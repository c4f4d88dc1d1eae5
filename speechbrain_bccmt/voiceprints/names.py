"""Valid names of speakers, and labels of utterances."""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 200
# What `bccmt identify` calls whoever is not enrolled.
UNKNOWN = "unknown"
# Zero-width, and part of how some languages and emoji are written.
_JOINERS = "\u200c\u200d"


def check_name(name: str) -> str:
    """Return a name as it is stored: in one Unicode form, without leading or trailing spaces.

    Parameters
    ----------
    name : str
        As typed.

    Returns
    -------
    str
        The name.

    Raises
    ------
    ValueError
        If it is empty, longer than `LONGEST_NAME` characters or the word for strangers, or has control characters or
        invisible ones, with which two names would look alike.

    Examples
    --------
    >>> check_name(" Jose\u0301 ") == "José"
    True
    """
    checked = _visible(name, "name for a voiceprint")
    if checked.casefold() == UNKNOWN:
        raise ValueError(f"{name!r} is what a stranger is called: give another name")
    return checked


def check_label(label: str) -> str:
    """Return a label of an utterance, such as headset or phone, as it is stored; errors are those of `check_name`.

    Examples
    --------
    >>> check_label(" headset ")
    'headset'
    """
    return _visible(label, "label")


def _visible(name: str, kind: str) -> str:
    checked = unicodedata.normalize("NFC", name).strip()
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    wrong = [
        letter for letter in checked if unicodedata.category(letter) in hidden and letter not in _JOINERS
    ]
    if not checked or wrong or len(checked) > LONGEST_NAME:
        raise ValueError(
            f"{name[: LONGEST_NAME + 1]!r} is no {kind}: expected one line of visible text, of at most "
            f"{LONGEST_NAME} characters"
        )
    return checked
