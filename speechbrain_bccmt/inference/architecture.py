"""The parts of a model as plain data: read from config.json, or from the YAML of a training or of SpeechBrain.

HyperPyYAML builds whatever a YAML names: `!apply:os.system` runs a command. No YAML is built here. Only the names and
options of a speaker model's parts are read, and only networks and front ends of PyTorch, SpeechBrain and this package
are constructed; everything else in the file is ignored. An object is a dict with `class` and `options` (`partial` true
for one that is called later).
"""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import pydoc
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import nn

NEEDED = ("compute_features", "mean_var_norm", "embedding_model")
OPTIONAL = ("mean_var_norm_emb", "classifier")
# Networks from these packages, judged by where the class itself is defined: a dotted path may lead from a module to
# anything that it imports.
_PACKAGES = (
    "speechbrain_bccmt.",
    "speechbrain.lobes.",
    "speechbrain.nnet.",
    "speechbrain.processing.",
    "torch.nn.",
)


def read_architecture(path: Path, overrides: dict | str | None = None) -> dict:
    """Read the description of a model.

    Parameters
    ----------
    path : Path
        A config.json, or the `hyperparams.yaml` of a training or a SpeechBrain folder.
    overrides : dict or str, optional
        Values to replace in a YAML.

    Returns
    -------
    dict
        The objects of `NEEDED`, those of `OPTIONAL` that exist, and all plain values of the file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or lacks a part.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = json.loads(text)
            found = {**content, **content["modules"]}
        else:
            found = _from_yaml(text, path, overrides)
    except (YAMLError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError) as error:
        reason = " ".join(str(error).split("To suppress")[0].split())
        raise ValueError(f"{path} is no valid {path.suffix[1:].upper()} of a model: {reason}") from error
    missing = [key for key in NEEDED if not _is_object(found.get(key))]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it does not describe a speaker model")
    return found


def build(node, name: str, trusted: bool | None = None):
    """Build an object from its description.

    Parameters
    ----------
    node
        A part of what `read_architecture` returns.
    name : str
        Name of the file for messages.
    trusted : bool or None
        Whether classes of any package may be built; None: as the environment variable BCCMT_TRUST_CODE says.

    Returns
    -------
    object
        The object; plain values are returned unchanged.

    Raises
    ------
    ValueError
        If it is of a class that is not trusted, or cannot be built.

    Examples
    --------
    >>> build({"class": "torch.nn.Linear", "options": {"in_features": 2, "out_features": 1}}, "config.json")
    Linear(in_features=2, out_features=1, bias=True)
    >>> build({"class": "os.system", "options": ["ls"]}, "config.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: config.json asks for 'os.system', which is no known network or front end: ...
    """
    if trusted is None:
        trusted = os.environ.get("BCCMT_TRUST_CODE", "") not in ("", "0")
    if isinstance(node, list):
        return [build(item, name, trusted) for item in node]
    if not isinstance(node, Mapping):
        return node
    if not _is_object(node):
        return {key: build(value, name, trusted) for key, value in node.items()}
    path = node["class"]
    if not (trusted or _is_network(path)):
        raise ValueError(
            f"{name} asks for '{path}', which is no known network or front end: load it only where you trust its "
            "author, with trust_code=True or BCCMT_TRUST_CODE=1"
        )
    options = build(node["options"], name, trusted)
    arguments, keywords = (options, {}) if isinstance(options, list) else ([], options)
    try:
        target = pydoc.locate(path)
        if target is None:
            raise ImportError(f"there is no {path}")
        return (
            (partial(target, *arguments, **keywords))
            if node.get("partial")
            else target(*arguments, **keywords)
        )
    except Exception as error:  # an object may raise anything
        raise ValueError(f"{name} cannot be built: {path}: {type(error).__name__}: {error}") from error


def to_yaml(node) -> str:
    """Return a description as a line of HyperPyYAML, for plain SpeechBrain.

    Examples
    --------
    >>> to_yaml({"class": "torch.nn.Linear", "options": {"in_features": 2, "bias": False}})
    '!new:torch.nn.Linear {"in_features": 2, "bias": false}'
    """
    if isinstance(node, list):
        return "[" + ", ".join(map(to_yaml, node)) + "]"
    if not isinstance(node, Mapping):
        return json.dumps(node)
    if not _is_object(node):
        return "{" + ", ".join(f"{json.dumps(key)}: {to_yaml(value)}" for key, value in node.items()) + "}"
    is_class = inspect.isclass(pydoc.locate(node["class"]))
    tag = "!name" if node.get("partial") else "!new" if is_class else "!apply"
    return f"{tag}:{node['class']} {to_yaml(node['options'])}"


def _is_object(node) -> bool:
    return isinstance(node, Mapping) and {"class", "options"} <= node.keys()


def _from_yaml(text: str, path: Path, overrides: dict | str | None) -> dict:
    for event in YAML().parse(text):
        tag = str(getattr(event, "tag", None) or "")
        if tag.startswith(("!applyref", "!include")):  # run when references are resolved
            raise ValueError(f"'{tag}' is not allowed in the YAML of a model")
    stream = io.StringIO(text)
    stream.name = str(path)
    nodes = YAML().load(resolve_references(stream, overrides, bool(overrides)))
    if not isinstance(nodes, Mapping):
        raise ValueError("it holds no keys")
    parts = {key: _to_plain(nodes[key]) for key in (*NEEDED, *OPTIONAL) if key in nodes}
    return {key: value for key, value in nodes.items() if isinstance(value, str | int | float)} | parts


def _to_plain(node):
    """Convert a YAML node to plain data."""
    tag = str(getattr(getattr(node, "tag", None), "value", None) or "")
    kind, _, path = tag.partition(":")
    if isinstance(node, Mapping):
        content = {str(key): _to_plain(value) for key, value in node.items()}
    elif isinstance(node, list):
        content = [_to_plain(value) for value in node]
    elif tag:  # a scalar with a tag: an object without options
        content = {}
    elif isinstance(node, str) and node.startswith("("):  # HyperPyYAML's tuples
        return list(ast.literal_eval(str(node)))
    else:
        return _scalar(node)
    if kind in ("!new", "!apply", "!name"):
        return {"class": path, "options": content} | ({"partial": True} if kind == "!name" else {})
    if tag and not tag.startswith("tag:yaml.org,2002:"):
        raise ValueError(f"'{tag}' is not allowed in the parts of a model")
    return content


def _scalar(node):
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return None if node is None else str(node)


def _is_network(path: str) -> bool:
    if not path.startswith(_PACKAGES):
        return False
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport:
        return False
    origin = f"{getattr(found, '__module__', None)}."
    if inspect.isclass(found):
        return origin.startswith(_PACKAGES) and issubclass(found, nn.Module)
    # Builders, such as bccmt_tiny.
    return inspect.isfunction(found) and origin.startswith(
        ("speechbrain_bccmt.lobes.", "speechbrain_bccmt.features.")
    )
