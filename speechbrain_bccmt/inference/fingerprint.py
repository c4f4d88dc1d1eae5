"""A short digest of a model, equal if embeddings are comparable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import torch

# Parts that an embedding depends on; a classifier, for example, is not one of them.
PARTS = ("compute_features", "mean_var_norm", "embedding_model")
# Attributes that change with use or with the device, while the embedding stays the same.
_PASSING = {"training", "device", "count", "first_call"}


def fingerprint(model) -> str:
    """Digest a model: its front end, its normalisation, and its encoder with all parameters.

    Embeddings can be compared only if the fingerprints are equal. It depends neither on the device nor on the mode of
    the model. It cannot detect a change of the code itself.

    Parameters
    ----------
    model : mapping of str to torch.nn.Module, or a SpeechBrain interface
        With `compute_features`, `mean_var_norm` and `embedding_model`; of an interface, such as `SpeakerRecognition`,
        the `mods` are used. Other parts do not count.

    Returns
    -------
    str
        16 hexadecimal digits, from the class names and options of all modules but PyTorch's own, and the names,
        types, shapes and values of all parameters and buffers. An option that is None, False or 0 counts as absent:
        later versions can add options without making every voiceprint worthless.

    Raises
    ------
    ValueError
        If a part is missing.

    Examples
    --------
    >>> from speechbrain.processing.features import InputNormalization
    >>> from speechbrain_bccmt.features import KaldiFbank
    >>> parts = {"compute_features": KaldiFbank(), "mean_var_norm": InputNormalization(norm_type="sentence")}
    >>> one, other = (parts | {"embedding_model": torch.nn.Linear(80, size)} for size in (2, 3))
    >>> len(fingerprint(one)), fingerprint(one) == fingerprint(one), fingerprint(one) == fingerprint(other)
    (16, True, False)
    """
    parts = getattr(model, "mods", model)
    if not isinstance(parts, Mapping | torch.nn.ModuleDict):
        raise ValueError(
            f"a {type(model).__name__} has no parts to take a fingerprint of: expected {', '.join(PARTS)}"
        )
    missing = [name for name in PARTS if name not in parts]
    if missing:
        raise ValueError(f"the model has no {' and no '.join(missing)}: expected {', '.join(PARTS)}")
    digest = hashlib.blake2b(digest_size=8)
    for part in PARTS:
        for name, module in parts[part].named_modules():
            digest.update(
                json.dumps([part, name, type(module).__name__, _options(module)], sort_keys=True).encode()
            )
            for key, tensor in _own_tensors(module):
                # bfloat16 and the like are unknown to NumPy; their bits are not.
                bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode())
                digest.update(np.ascontiguousarray(bits.numpy()).data)
    return digest.hexdigest()


def _options(module: torch.nn.Module) -> dict:
    """Return the options that a module was built with, as far as its public attributes show them."""
    if type(module).__module__.startswith("torch."):
        # Shapes show most of it and our modules' options the rest; a new PyTorch may add attributes.
        return {}
    options = {
        name: _plain(value)
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _PASSING
    }
    return {name: value for name, value in options.items() if value}


def _plain(value):
    """Return an option in its JSON form, numbers as float (20 is 20.0), and None for anything else."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        plain = {str(name): _plain(item) for name, item in value.items()}
        return {name: item for name, item in plain.items() if item}
    return None


def _own_tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors that a checkpoint of the module holds, and a global mean if there is one.

    The windows and filters that a front end computes from its options are left out: their last bit depends on the
    machine.
    """
    own = [
        (name, tensor)
        for name, tensor in module.state_dict(keep_vars=True).items()
        if "." not in name and isinstance(tensor, torch.Tensor)
    ]
    if getattr(module, "norm_type", None) == "global":  # SpeechBrain's InputNormalization
        own += [(name, getattr(module, name)) for name in ("glob_mean", "glob_std")]
    return sorted(own, key=lambda item: item[0])
