"""Builds what a model's YAML describes, and refuses one that would run code.

HyperPyYAML builds whatever a YAML names: `!apply:os.system` runs a command, and so do `!!python/...` tags and text
in parentheses that holds such a tag. A model from elsewhere may name only networks, front ends and what
SpeechBrain's interface needs beside them.
"""

from __future__ import annotations

import inspect
import os
import pydoc
from collections.abc import Callable

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import nn

# Classes of networks from these packages, judged by where the class itself is defined: a dotted path may lead
# from one module to anything that it imports.
_PACKAGES = (
    "speechbrain_bccmt.",
    "speechbrain.lobes.",
    "speechbrain.nnet.",
    "speechbrain.processing.",
    "torch.nn.",
)
_OTHERS = ("speechbrain.dataio.encoder.CategoricalEncoder", "speechbrain.utils.parameter_transfer.Pretrainer")
_YAML = "tag:yaml.org,2002:"
_YAML_TAGS = {"str", "int", "float", "bool", "null", "seq", "map", "merge"}


def check_yaml(text: str, name: str) -> None:
    """Raise where building a HyperPyYAML text would run code other than that of networks.

    Parameters
    ----------
    text : str
        The YAML.
    name : str
        What to call it in messages.

    Raises
    ------
    ValueError
        If it would, or is no valid YAML.

    Examples
    --------
    >>> check_yaml("model: !new:torch.nn.Linear {in_features: 2, out_features: 1}", "a.yaml")
    >>> check_yaml("model: !apply:os.system [ls]", "a.yaml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: a.yaml would run '!apply:os.system' on loading, which is no network: ...
    """
    check_references(text, name)
    # References can bring forth what is not there before they are put in.
    _refuse_any(lambda: _find(text, _is_code) or _find(resolve_references(text).getvalue(), _is_code), name)


def build_yaml(
    text: str,
    name: str,
    trusted: bool,
    overrides: dict | str | None = None,
    overrides_must_match: bool = True,
) -> dict:
    """Build what a HyperPyYAML text describes.

    Parameters
    ----------
    text, name
        See `check_yaml`.
    trusted : bool
        Whether it may run any code; else `check_yaml` looks at it before.
    overrides, overrides_must_match
        See `hyperpyyaml.load_hyperpyyaml`.

    Returns
    -------
    dict
        Its keys and what was built.

    Raises
    ------
    ValueError
        If it would run code and may not, or cannot be built.

    Examples
    --------
    >>> build_yaml("model: !new:torch.nn.Linear {in_features: 2, out_features: 1}", "a.yaml", trusted=False)
    {'model': Linear(in_features=2, out_features=1, bias=True)}
    """
    if not trusted:
        check_yaml(text, name)
    try:
        return load_hyperpyyaml(text, overrides, overrides_must_match)
    except Exception as error:  # what building an object raises, is told by that object alone
        raise ValueError(f"{name} cannot be built: {type(error).__name__}: {error}") from error


def is_trusted(trust_code: bool | None) -> bool:
    """Tell whether a model may run code on loading: what the caller says, or else the environment (None).

    Examples
    --------
    >>> is_trusted(True), is_trusted(False)
    (True, False)
    """
    return os.environ.get("BCCMT_TRUST_CODE", "") not in ("", "0") if trust_code is None else trust_code


def check_references(text: str, name: str) -> None:
    """Raise where putting references in, before anything is built, would run code or read other files.

    Parameters and errors are those of `check_yaml`, which checks this as well.
    """
    _refuse_any(lambda: _find(text, lambda tag, _: tag.startswith(("!applyref", "!include"))), name)


def _refuse_any(find: Callable[[], str | None], name: str) -> None:
    try:
        code = find()
    except (YAMLError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name} is no valid YAML: {' '.join(str(error).split())}") from error
    if code:
        raise ValueError(
            f"{name} would run '{code}' on loading, which is no network: load it only where you trust its author, "
            "with trust_code=True or BCCMT_TRUST_CODE=1"
        )


def _find(text: str, is_wrong: Callable[[str, str], bool]) -> str | None:
    for event in YAML().parse(text):
        tag, value = str(getattr(event, "tag", None) or ""), getattr(event, "value", "")
        if is_wrong(tag, value):
            return tag or value
    return None


def _is_code(tag: str, value: str) -> bool:
    # HyperPyYAML reads text in parentheses as YAML once more, and that without any restriction.
    return (value.startswith("(") and "!" in value) or not (tag == "" or _is_harmless(tag))


def _is_harmless(tag: str) -> bool:
    if tag.startswith(_YAML):
        return tag.removeprefix(_YAML) in _YAML_TAGS
    kind, _, path = tag.partition(":")
    if tag in ("!", "!ref", "!copy"):
        return True
    if kind not in ("!new", "!name", "!apply"):
        return False
    if path in _OTHERS:
        return kind == "!new"
    if not path.startswith(_PACKAGES):
        return False
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport:
        return False
    origin = f"{getattr(found, '__module__', None)}."
    if inspect.isclass(found):
        return origin.startswith(_PACKAGES) and issubclass(found, nn.Module)
    # The builders of encoders, such as bccmt_tiny.
    return inspect.isfunction(found) and origin.startswith("speechbrain_bccmt.lobes.")
