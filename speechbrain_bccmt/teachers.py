"""Frozen teachers for distillation."""

from __future__ import annotations

import pickle

import torch
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import nn

from speechbrain_bccmt.pretrained import load_pretrained


class FrozenTeacher(nn.Module):
    """An encoder that cannot learn: no gradients, always in evaluation mode, batch statistics as trained.

    Parameters
    ----------
    model : torch.nn.Module
        Encoder with `forward_with_attention(features, lengths)`.

    Examples
    --------
    >>> from speechbrain_bccmt.lobes.bccmt import bccmt_tiny
    >>> teacher = FrozenTeacher(bccmt_tiny()).train()
    >>> teacher.model.training
    False
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True):
        """Stay in evaluation mode whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, features, lengths=None):
        """Embed features (batch, frames, mels): (batch, 1, embedding size)."""
        return self.model(features, lengths)

    @torch.no_grad()
    def forward_with_attention(self, features, lengths=None):
        """Embed features and give the attention maps, one per block."""
        return self.model.forward_with_attention(features, lengths)


def load_teacher(source, model: nn.Module, name: str = "embedding_model") -> FrozenTeacher:
    """Load a trained encoder as a teacher.

    Parameters
    ----------
    source : str or Path
        Output folder of a training run, a folder of a pretrained model, or a hub id.
    model : torch.nn.Module
        Encoder of the teacher's shape; its weights are replaced.
    name : str
        Name of the recoverable.

    Returns
    -------
    FrozenTeacher
        In evaluation mode and without gradients, for good.

    Raises
    ------
    FileNotFoundError
        If there is no such teacher.
    ValueError
        If the weights belong to another model, or the model gives no attention maps.

    Examples
    --------
    >>> from speechbrain_bccmt.lobes.bccmt import bccmt_tiny
    >>> folder = getfixture("tmp_path")
    >>> torch.save(bccmt_tiny().state_dict(), folder / "embedding_model.ckpt")
    >>> teacher = load_teacher(folder, bccmt_tiny())
    >>> any(parameter.requires_grad for parameter in teacher.parameters())
    False
    """
    if not hasattr(model, "forward_with_attention"):
        raise ValueError(
            f"teacher {type(model).__name__} gives no attention maps: it lacks forward_with_attention"
        )
    try:
        load_pretrained(Pretrainer(loadables={name: model}), source)
    except ValueError as error:
        raise ValueError(f"teacher {source}: {str(error).splitlines()[0]}") from error
    except pickle.UnpicklingError as error:
        raise ValueError(f"teacher {source}: its {name}.ckpt is not a file of model weights") from error
    return FrozenTeacher(model)
