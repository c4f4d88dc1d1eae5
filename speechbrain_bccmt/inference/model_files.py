"""Finding the files of a trained model: shipped with the package, in a folder, or on the HuggingFace hub."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from speechbrain_bccmt.models import resolve_model, shipped_models

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
CONFIG_FILE, HPARAMS_FILE, CALIBRATION_FILE = "config.json", "hyperparams.yaml", "calibration.json"
GRAPH_FILE, PHRASE_FILE = "waveform.onnx", "phrase_calibration.json"
# Calibration of the model after adaptation to a domain, see `inference.domain`.
CENTRED_CALIBRATION_FILE = "calibration_centred.json"
# Thresholds for streaming decisions and for open-set identification, on the ratios of the model's own calibration.
SEQUENTIAL_FILE, OPEN_SET_FILE = "sequential.json", "open_set.json"


def find_file(source: str | Path, name: str, needed: bool = True) -> Path | None:
    """Find a file of a model on this machine; files of a hub repository are fetched.

    Parameters
    ----------
    source : str or Path
        Name of a shipped model, a folder, or the id `owner/model` of a HuggingFace hub repository. A shipped model
        takes precedence over a folder of the same name, and a folder over a hub id.
    name : str
        The file's name.
    needed : bool
        False returns None if there is no such file.

    Returns
    -------
    Path or None
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or repository, or a needed file is not in it.
    """
    folder = Path(resolve_model(source))
    if not folder.exists() and HUB_ID.fullmatch(str(source)):
        try:
            return fetch_from_hub(str(source), name)
        except FileNotFoundError:
            if needed:
                raise
            return None
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no model at '{source}': it is neither a folder nor a HuggingFace hub id ('owner/model') nor a shipped "
            f"model ({', '.join(shipped_models())})"
        )
    if (folder / name).is_file():
        return folder / name
    if needed:
        raise FileNotFoundError(
            f"no model in '{source}': it has no {name}; expected a published folder, or the output folder of a training"
        )
    return None


def find_own_file(source: str | Path, name: str) -> Path | None:
    """Find a file that only models of this package have: None for a file of another toolkit, or without a source."""
    return find_file(source, name, needed=False) if source and not Path(source).is_file() else None


def hub_errors() -> tuple[type[Exception], ...]:
    """List the exception classes that the hub's client raises: its own, and those of its HTTP library.

    That was `requests` up to huggingface_hub 0.x, then `httpx`, then `httpx2`; the client does not wrap all errors.

    Returns
    -------
    tuple of type
        For an `except` clause.
    """
    from huggingface_hub.errors import HfHubHTTPError

    classes = [HfHubHTTPError]
    transports = (
        ("requests.exceptions", "RequestException"),
        ("httpx", "HTTPError"),
        ("httpx2", "HTTPError"),
    )
    for module, name in transports:
        with contextlib.suppress(ImportError):
            classes.append(getattr(importlib.import_module(module), name))
    return tuple(classes)


def fetch_from_hub(source: str, filename: str) -> Path:
    """Fetch one file of a HuggingFace hub repository, or find it in the cache.

    Raises
    ------
    FileNotFoundError
        If the repository has no such file, or if the hub is out of reach and the file is not in the cache. Without a
        network this is raised at once: the client itself would retry for half a minute.
    """
    try:
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    except ImportError:
        raise FileNotFoundError(
            f"no model at '{source}': there is no such folder, and models of the HuggingFace hub need the package "
            "huggingface_hub: pip install huggingface_hub"
        ) from None
    reason = "the hub is out of reach"
    if constants.HF_HUB_OFFLINE or _hub_has_address(constants.ENDPOINT):
        try:
            return Path(hf_hub_download(source, filename))
        except (*hub_errors(), OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
    elif isinstance(cached := try_to_load_from_cache(source, filename), str):
        return Path(cached)
    raise FileNotFoundError(
        f"no model at '{source}': there is no such folder, and {filename} could not be "
        f"fetched from the HuggingFace hub repository of that name ({reason})"
    )


@functools.lru_cache(maxsize=1)
def _hub_has_address(endpoint: str) -> bool:
    """Return whether the hub's host name can be resolved: without a network it cannot."""
    try:
        return bool(socket.getaddrinfo(urlsplit(endpoint).hostname, None))
    except OSError:
        return False
