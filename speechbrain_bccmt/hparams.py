"""Loading an experiment's YAML with overrides from the command line."""

from __future__ import annotations

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode

KINDS = {"int": "a number", "float": "a number", "bool": "True or False"}


def load_hparams(hparams_file, overrides=None) -> dict:
    """Load a HyperPyYAML file.

    Parameters
    ----------
    hparams_file : str or Path
        The YAML.
    overrides : str or dict, optional
        Keys to replace, as `speechbrain.parse_arguments` returns them.

    Returns
    -------
    dict
        The hyperparameters, with all objects built.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file or an override is not valid YAML, or an override names no key of the file or has text in place of a
        number or of True or False.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "experiment.yaml"
    >>> _ = path.write_text("lr: 0.1")
    >>> load_hparams(path, "lr: 0.2")
    {'lr': 0.2}
    """
    try:
        with open(hparams_file, encoding="utf-8") as file:
            if isinstance(overrides, str):
                _refuse_text(_scalars(file.read()), _scalars(overrides))
                file.seek(0)
            return load_hyperpyyaml(file, overrides)
    except KeyError as error:
        raise ValueError(f"{hparams_file}: {error.args[0]}") from error
    except YAMLError as error:
        reason = " ".join(str(error).split("To suppress")[0].split())
        raise ValueError(
            f"{hparams_file} or an option of the command line is no valid YAML: {reason}"
        ) from error


def _scalars(text: str) -> dict[str, tuple[str, str]]:
    """Return kind and value of each key whose value is a scalar."""
    root = YAML().compose(text)
    pairs = root.value if isinstance(root, MappingNode) else []
    return {key.value: (str(node.tag).rpartition(":")[2], node.value) for key, node in pairs}


def _refuse_text(known: dict[str, tuple[str, str]], given: dict[str, tuple[str, str]]) -> None:
    """Raise ValueError if text replaces a number or a truth value, which would only fail later."""
    for key, (kind, value) in given.items():
        if kind == "str" and (expected := KINDS.get(known.get(key, ("",))[0])):
            raise ValueError(f"{key} is {value!r}: it must be {expected}, as {known[key][1]} is")
