"""Finds and loads the trained parts of a model: local folders, training outputs and hub ids.

SpeechBrain keeps a trained model in three shapes: a flat folder with `<name>.ckpt` files (what a hub
repository holds), a `save` folder with one `CKPT+...` subfolder a checkpoint (what its `Checkpointer`
writes), and the output folder around that. All three are accepted wherever this package asks for a
pretrained model.
"""

import contextlib
import importlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError
from speechbrain.utils.checkpoints import (
    DEFAULT_TRANSFER_HOOKS,
    Checkpointer,
    get_default_hook,
    hook_on_loading_state_dict_checkpoint,
    torch_parameter_transfer,
)
from speechbrain.utils.fetching import fetch
from speechbrain.utils.logger import get_logger
from yaml import YAMLError

logger = get_logger(__name__)

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find_checkpoint_file(
    source: str | Path, name: str = "embedding_model", min_key: str | None = "eer"
) -> Path:
    """Tell which file holds the parameters of one part of a trained model.

    Parameters
    ----------
    source : str or Path
        A flat folder with `<name>.ckpt`; a SpeechBrain save folder with `CKPT+...` subfolders; the output
        folder of a training run, with `save` inside; or the id `owner/model` of a HuggingFace hub repository.
        A local folder wins over a hub id of the same name.
    name : str
        The recoverable's name, which is the file's name without `.ckpt`.
    min_key : str or None
        Among several checkpoints the one with the lowest value under this key of its meta data is taken;
        where none has the key, or it is None, the most recent one.

    Returns
    -------
    Path
        The parameter file, which exists.

    Raises
    ------
    FileNotFoundError
        If no such file is found; the message lists what was looked for.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "embedding_model.ckpt").touch()
    ...     find_checkpoint_file(folder).name
    'embedding_model.ckpt'
    """
    folder = Path(source)
    filename = f"{name}.ckpt"
    if not folder.exists() and HUB_ID.fullmatch(str(source)):
        return fetch_from_hub(str(source), filename)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no pretrained model at '{source}': it is neither a folder nor a HuggingFace hub id "
            "('owner/model')"
        )
    if (folder / filename).is_file():
        return folder / filename
    for save_folder in (folder, folder / "save"):
        if save_folder.is_dir():
            found = _best_checkpoint(save_folder, filename, min_key)
            if found is not None:
                return found
    raise FileNotFoundError(
        f"no pretrained '{name}' in '{folder}': looked for {filename}, CKPT+*/{filename} and "
        f"save/CKPT+*/{filename}. "
        "Give a folder written by training (or its save folder), or one that holds the .ckpt files."
    )


def load_pretrained(pretrainer, source: str | Path, min_key: str | None = "eer") -> dict[str, Path]:
    """Load the loadables of a SpeechBrain `Pretrainer` from one source, and insist that every parameter fits.

    SpeechBrain's own transfer only warns when names differ, so that a model built with other options than the
    stored one would run with random weights; here that is an error.

    Parameters
    ----------
    pretrainer : speechbrain.utils.parameter_transfer.Pretrainer
        Its `loadables` name the parts to load. A loadable that already has a path of its own keeps it.
    source : str or Path
        Where to find the other loadables, see `find_checkpoint_file`.
    min_key : str or None
        How to choose among checkpoints, see `find_checkpoint_file`.

    Returns
    -------
    dict of str to Path
        The file that each part was loaded from.

    Raises
    ------
    FileNotFoundError
        If a file is not found.
    ValueError
        If the stored parameters do not fit the model that was built.
    """
    for name, loadable in pretrainer.loadables.items():
        if name not in pretrainer.paths:
            # Absolute: SpeechBrain splits this path at "/" to find its folder.
            path = find_checkpoint_file(source, name, min_key).absolute()
            pretrainer.add_paths({name: path.as_posix()})
        hook = get_default_hook(loadable, DEFAULT_TRANSFER_HOOKS)
        if hook is not None and name not in pretrainer.custom_hooks:
            # A class with a hook of its own, such as InputNormalization, keeps something else than a state dict.
            strict = hook is torch_parameter_transfer
            pretrainer.add_custom_hooks({name: _load_strictly if strict else partial(_load_checked, hook)})
    files = pretrainer.collect_files()
    pretrainer.load_collected()
    return files


def read_parameters(path: str | Path):
    """Read a file of PyTorch without running what it may hold.

    Parameters
    ----------
    path : str or Path
        Such as `embedding_model.ckpt`.

    Returns
    -------
    object
        What is in it, on the CPU.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    ValueError
        If it is damaged, or would run code on loading; the message names it.
    """
    try:
        # Said outright: an environment variable can turn torch's default into running what a pickle holds.
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # what a damaged pickle raises can be anything, an OSError without a name included
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(
            f"'{path}' cannot be loaded: it is truncated, is no PyTorch checkpoint, or would run code on loading "
            f"({type(error).__name__})"
        ) from error


def _load_strictly(module: torch.nn.Module, path: str | Path) -> None:
    state = read_parameters(path)
    try:
        module.load_state_dict(hook_on_loading_state_dict_checkpoint(state), strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the parameters in '{path}' do not fit the {type(module).__name__} that was built: check that "
            f"the options of the model are those of its training.\n{error}"
        ) from error


def _load_checked(hook: Callable, loadable, path: str | Path) -> None:
    """Load by a class's own hook, which reads the file as it pleases: what is in it is looked at before."""
    read_parameters(path)
    try:
        hook(loadable, path)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"what is in '{path}' does not fit a {type(loadable).__name__}: {error}") from error


def _best_checkpoint(save_folder: Path, filename: str, min_key: str | None) -> Path | None:
    def holds_file(checkpoint) -> bool:
        return (Path(checkpoint.path) / filename).is_file()

    checkpointer = Checkpointer(save_folder)
    try:
        for checkpoint in checkpointer.list_checkpoints():
            checkpoint.meta.keys()  # what is no mapping, SpeechBrain takes for a checkpoint without the key
        best = checkpointer.find_checkpoint(min_key=min_key, ckpt_predicate=holds_file) if min_key else None
        newest = best or checkpointer.find_checkpoint(ckpt_predicate=holds_file)
    except (YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{save_folder}: a CKPT.yaml in it is damaged, so that its checkpoints cannot be told apart "
            f"({type(error).__name__}: {error})"
        ) from error
    if best is None and newest is not None and min_key is not None:
        logger.warning(f"no checkpoint in {save_folder} tells its '{min_key}': taking the newest")
    return None if newest is None else Path(newest.path) / filename


def hub_errors() -> tuple[type[Exception], ...]:
    """List the classes of what the hub's client raises: its own, and those of whatever carries its requests.

    That was `requests` up to huggingface_hub 0.x, then `httpx`, then `httpx2`; the client wraps not all of it.

    Returns
    -------
    tuple of type
        For an `except` clause.
    """
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
    """Fetch one file of a HuggingFace hub repository, or find it in the cache."""
    try:
        return Path(fetch(filename, source))
    except (*hub_errors(), OSError, ValueError) as error:
        raise FileNotFoundError(
            f"no pretrained model at '{source}': there is no such folder, and {filename} could not be "
            f"fetched from the HuggingFace hub repository of that name ({type(error).__name__}: {error})"
        ) from error
