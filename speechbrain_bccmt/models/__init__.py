"""The models that come with the package: a published folder each, as `bccmt export hub` writes it."""

from __future__ import annotations

from pathlib import Path

DEFAULT = "tiny"
_ROOT = Path(__file__).parent


def shipped_models() -> list[str]:
    """List the names of the models that come with the package.

    Examples
    --------
    >>> DEFAULT in shipped_models()
    True
    """
    return sorted(path.parent.name for path in _ROOT.glob("*/config.json"))


def resolve_model(source: str | Path) -> str | Path:
    """Return the folder of a shipped model by its name, and any other source as it is.

    A bare name means the shipped model even beside a folder of that name, which is `./tiny`.

    Examples
    --------
    >>> resolve_model("tiny").name, resolve_model("./tiny")
    ('tiny', './tiny')
    """
    return _ROOT / source if str(source) in shipped_models() else source
