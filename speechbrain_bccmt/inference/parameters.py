"""Finding and reading the parameters of a trained model: shipped models, local folders, training outputs, hub ids.

A trained model comes in three forms: a flat folder with `<name>.safetensors` or `<name>.ckpt` files (as in a hub
repository), a `save` folder with one `CKPT+...` subfolder per checkpoint (as written by SpeechBrain's `Checkpointer`),
and the output folder around that. All three are accepted wherever this package takes a pretrained model.
"""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.checkpoints import (
    DEFAULT_TRANSFER_HOOKS,
    Checkpointer,
    get_default_hook,
    hook_on_loading_state_dict_checkpoint,
    torch_parameter_transfer,
)
from speechbrain.utils.logger import get_logger
from yaml import YAMLError

from speechbrain_bccmt.inference.model_files import find_file
from speechbrain_bccmt.models import resolve_model

logger = get_logger(__name__)


def find_checkpoint_file(
    source: str | Path, name: str = "embedding_model", min_key: str | None = "eer"
) -> Path:
    """Find the parameter file of one part of a trained model.

    Parameters
    ----------
    source : str or Path
        A flat folder with `<name>.safetensors` or `<name>.ckpt`; a SpeechBrain save folder with `CKPT+...`
        subfolders; the output folder of a training run, with `save` inside; a shipped model's name; or a hub id.
    name : str
        The recoverable's name.
    min_key : str or None
        Among several checkpoints, the one with the lowest value under this metadata key is taken; if none has the
        key, or it is None, the most recent one.

    Returns
    -------
    Path
        The file, which exists.

    Raises
    ------
    FileNotFoundError
        If no such file is found; the message lists the files that were tried.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "embedding_model.ckpt").touch()
    ...     find_checkpoint_file(folder).name
    'embedding_model.ckpt'
    """
    folder = Path(resolve_model(source))
    for ending in (".safetensors", ".ckpt"):
        found = find_file(source, name + ending, needed=ending == ".ckpt" and not folder.is_dir())
        if found is not None:
            return found
    for save_folder in (folder, folder / "save"):
        if save_folder.is_dir():
            found = _best_checkpoint(save_folder, f"{name}.ckpt", min_key)
            if found is not None:
                return found
    raise FileNotFoundError(
        f"no pretrained '{name}' in '{folder}': looked for {name}.safetensors, {name}.ckpt and CKPT+*/{name}.ckpt, "
        "here and in save/. Give a folder written by training (or its save folder), or one that holds the files"
    )


def read_labels(source: str | Path, needed: bool = True) -> CategoricalEncoder | None:
    """Read the classes of a trained model.

    Parameters
    ----------
    source : str or Path
        As for `find_checkpoint_file`.
    needed : bool
        False returns None if there is no label file.

    Returns
    -------
    CategoricalEncoder or None
        Filled; SpeechBrain itself silently leaves it empty if it finds no file.

    Raises
    ------
    FileNotFoundError
        If there is no label file.
    ValueError
        If it is damaged or names no class.
    """
    names = [f"label_encoder{ending}" for ending in (".txt", ".ckpt")]
    inside = [f"save/{names[0]}"] if Path(resolve_model(source)).is_dir() else []
    paths = (find_file(source, name, needed=False) for name in (*names, *inside))
    path = next((path for path in paths if path is not None), None)
    if path is None:
        if needed:
            raise FileNotFoundError(f"no label_encoder.txt (or .ckpt) in '{source}', which names the classes")
        return None
    encoder = CategoricalEncoder()
    try:
        encoder.load(path)
    except (ValueError, SyntaxError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is no label encoder of SpeechBrain: {error}") from error
    if not len(encoder):
        raise ValueError(f"{path} names no speaker")
    encoder.expect_len(len(encoder))
    return encoder


def load_parameters(
    parts: Mapping[str, torch.nn.Module], source: str | Path, min_key: str | None = "eer"
) -> dict[str, Path]:
    """Load parts of a model from one source, and check that every parameter fits.

    Parameters
    ----------
    parts : mapping of str to torch.nn.Module
        The modules, by the name of their recoverable.
    source : str or Path
        Where to find their files, see `find_checkpoint_file`.
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
        If the stored parameters are damaged, or do not fit the model that was built.
    """
    files = {}
    for name, module in parts.items():
        path = files[name] = find_checkpoint_file(source, name, min_key)
        state = read_parameters(path)
        hook = get_default_hook(module, DEFAULT_TRANSFER_HOOKS)
        try:
            if hook is torch_parameter_transfer:
                module.load_state_dict(hook_on_loading_state_dict_checkpoint(state), strict=True)
            else:  # a class with its own hook, such as InputNormalization, stores something else than a state dict
                hook(module, path)
        except (RuntimeError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"the parameters in '{path}' do not fit the {type(module).__name__} that was built: check that "
                f"the options of the model are those of its training.\n{error}"
            ) from error
    return files


def read_parameters(path: str | Path):
    """Read a file of parameters without running any code in it.

    Parameters
    ----------
    path : str or Path
        Such as `embedding_model.ckpt`.

    Returns
    -------
    object
        Its contents, on the CPU.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    ValueError
        If it is damaged, or would run code on loading; the message names it.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Explicit, since an environment variable can switch torch's default to running what a pickle holds.
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # a damaged pickle can raise anything, even an OSError without a file name
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(
            f"'{path}' cannot be loaded: it is truncated, is no file of parameters, or would run code on loading "
            f"({type(error).__name__})"
        ) from error


def _best_checkpoint(save_folder: Path, filename: str, min_key: str | None) -> Path | None:
    def holds_file(checkpoint) -> bool:
        return (Path(checkpoint.path) / filename).is_file()

    checkpointer = Checkpointer(save_folder)
    try:
        for checkpoint in checkpointer.list_checkpoints():
            checkpoint.meta.keys()  # SpeechBrain takes anything but a mapping for a checkpoint without the key
        best = checkpointer.find_checkpoint(min_key=min_key, ckpt_predicate=holds_file) if min_key else None
        newest = best or checkpointer.find_checkpoint(ckpt_predicate=holds_file)
    except (YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{save_folder}: a CKPT.yaml in it is damaged, so that its checkpoints cannot be told apart "
            f"({type(error).__name__}: {error})"
        ) from error
    if best is None and newest is not None and min_key is not None:
        logger.warning(f"no checkpoint in {save_folder} has '{min_key}': taking the newest")
    return None if newest is None else Path(newest.path) / filename
