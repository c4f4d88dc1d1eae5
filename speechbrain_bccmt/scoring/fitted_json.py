"""JSON files of models fitted on scores, with a format, a version and no missing keys."""

import json
import math
from pathlib import Path

import numpy as np

from speechbrain_bccmt.files import temporary_sibling


def finite_number(value, name: str) -> float:
    """Return a number as float; reject NaN, infinity and anything that is not a number.

    Parameters
    ----------
    value : float
        The value.
    name : str
        What it is, for the message.

    Returns
    -------
    float
        The value.

    Raises
    ------
    ValueError
        If it is not a finite number.
    """
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, expected a finite number")
    return float(value)


def write_json(path: str | Path, format_name: str, version: int, values: dict) -> None:
    """Write a fitted model as JSON with its format's name and version, atomically.

    Parameters
    ----------
    path : str or Path
        The file, replaced if it exists.
    format_name : str
        Name of the format.
    version : int
        Its version.
    values : dict
        The values, without NaN.
    """
    content = {"format": format_name, "version": version} | values
    with temporary_sibling(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)


def load_fields(kind: type, path: str | Path, format_name: str, version: int):
    """Build a dataclass from its fields in a file written by `write_json`.

    Raises
    ------
    OSError, ValueError
        As `read_json`, or if `kind` refuses the values; the message names the file.
    """
    values = read_json(path, format_name, version, list(kind.__dataclass_fields__))
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_json(path: str | Path, format_name: str, version: int, keys: list[str]) -> dict:
    """Read what `write_json` wrote.

    Parameters
    ----------
    path : str or Path
        The file.
    format_name : str
        Name of the format expected.
    version : int
        The version expected.
    keys : list of str
        The keys it must have.

    Returns
    -------
    dict
        These keys with their values.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not JSON, is of another format or version, or lacks a key.
    """
    name = format_name.rpartition(" ")[2]
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # also invalid UTF-8
        raise ValueError(f"{path} is no {name}: it cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != format_name:
        raise ValueError(f'{path} is no {name}: expected JSON with "format": "{format_name}"')
    if content.get("version") != version:
        raise ValueError(
            f"{path} is a {name} of version {content.get('version')}, this package reads version {version}: "
            "fit it again, or update the package"
        )
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it was cut or edited, fit the {name} again")
    return {key: content[key] for key in keys}
