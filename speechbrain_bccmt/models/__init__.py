"""The models shipped with the package, each a published folder as written by `bccmt export hub`."""

from __future__ import annotations

from pathlib import Path

DEFAULT = "tiny"
_ROOT = Path(__file__).parent


def shipped_models() -> list[str]:
    """Return the names of the shipped models.

    Examples
    --------
    >>> DEFAULT in shipped_models()
    True
    """
    return sorted(path.parent.name for path in _ROOT.glob("*/config.json"))


def resolve_model(source: str | Path) -> str | Path:
    """Return the folder of a shipped model by its name, and any other source unchanged.

    A bare name means the shipped model even next to a folder of that name; that folder is `./tiny`.

    Examples
    --------
    >>> resolve_model("tiny").name, resolve_model("./tiny")
    ('tiny', './tiny')
    """
    return _ROOT / source if str(source) in shipped_models() else source
