"""Loading an experiment's YAML with overrides from the command line."""

from __future__ import annotations

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml.error import YAMLError


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
        If the file or an override is not valid YAML, or an override names no key of the file.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "experiment.yaml"
    >>> _ = path.write_text("lr: 0.1")
    >>> load_hparams(path, "lr: 0.2")
    {'lr': 0.2}
    """
    try:
        with open(hparams_file, encoding="utf-8") as file:
            return load_hyperpyyaml(file, overrides)
    except KeyError as error:
        raise ValueError(f"{hparams_file}: {error.args[0]}") from error
    except YAMLError as error:
        reason = " ".join(str(error).split("To suppress")[0].split())
        raise ValueError(
            f"{hparams_file} or an option of the command line is no valid YAML: {reason}"
        ) from error
