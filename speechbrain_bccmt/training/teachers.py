"""Teachers for distillation: trained beforehand and frozen, or trained alongside the student."""

from __future__ import annotations

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import nn

from speechbrain_bccmt.inference.parameters import load_parameters, read_labels


class LearningTeacher(nn.Module):
    """An encoder and its classifier, trained on the labels alongside the student.

    `DistillationBrain` trains it with a speaker loss of its own; no gradient of the student's losses reaches it.

    Parameters
    ----------
    model : torch.nn.Module
        Encoder with `forward(features, lengths)`, and `forward_with_attention` for distillation of attention maps.
    classifier : torch.nn.Module or None
        Maps embeddings (batch, 1, size) to predictions (batch, 1, classes) over the student's classes.

    Examples
    --------
    >>> from speechbrain_bccmt.lobes.bccmt import bccmt_tiny
    >>> teacher = LearningTeacher(bccmt_tiny(), nn.Linear(192, 10))
    >>> teacher.classify(teacher(torch.rand(2, 50, 80))).shape
    torch.Size([2, 1, 10])
    """

    def __init__(self, model: nn.Module, classifier: nn.Module | None = None):
        super().__init__()
        self.model, self.classifier = model, classifier

    def forward(self, features, lengths=None):
        """Embed features (batch, frames, mels): (batch, 1, embedding size)."""
        return self.model(features, lengths)

    def forward_with_attention(self, features, lengths=None):
        """Embed features and return the attention maps, one per block."""
        return self.model.forward_with_attention(features, lengths)

    def classify(self, embeddings):
        """Predict the classes of embeddings (batch, 1, size): (batch, 1, classes).

        Raises
        ------
        ValueError
            If the teacher has no classifier.
        """
        if self.classifier is None:
            raise ValueError(
                "the teacher has no classifier to predict classes: give load_teacher one to fill"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.classifier(embeddings.float())


class FrozenTeacher(LearningTeacher):
    """A trained encoder that stays as it is: no gradients, and always in evaluation mode.

    Parameters
    ----------
    model, classifier : torch.nn.Module
        As for `LearningTeacher`.

    Examples
    --------
    >>> from speechbrain_bccmt.lobes.bccmt import bccmt_tiny
    >>> teacher = FrozenTeacher(bccmt_tiny()).train()
    >>> teacher.model.training
    False
    """

    def __init__(self, model: nn.Module, classifier: nn.Module | None = None):
        super().__init__(model, classifier)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True):
        """Stay in evaluation mode, whatever `mode`."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, features, lengths=None):
        """As for `LearningTeacher`, without gradients."""
        return super().forward(features, lengths)

    @torch.no_grad()
    def forward_with_attention(self, features, lengths=None):
        """As for `LearningTeacher`, without gradients."""
        return super().forward_with_attention(features, lengths)

    @torch.no_grad()
    def classify(self, embeddings):
        """As for `LearningTeacher`, without gradients."""
        return super().classify(embeddings)


def load_teacher(
    source,
    model: nn.Module,
    name: str = "embedding_model",
    classifier: nn.Module | None = None,
    label_encoder: CategoricalEncoder | None = None,
) -> FrozenTeacher:
    """Load a trained encoder as a teacher.

    Parameters
    ----------
    source : str or Path
        Output folder of a training run, a folder of a pretrained model, or a hub id.
    model : torch.nn.Module
        Encoder of the teacher's shape; its weights are replaced.
    name : str
        Name of the encoder's recoverable.
    classifier : torch.nn.Module or None
        The teacher's classifier, whose weights are replaced by the recoverable `classifier`; needed if its predictions
        are imitated.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder or None
        The student's classes. With a classifier, the teacher's `label_encoder.txt` must have the same in the same
        order.

    Returns
    -------
    FrozenTeacher
        Permanently in evaluation mode and without gradients.

    Raises
    ------
    FileNotFoundError
        If there is no such teacher, or its classes are not known.
    ValueError
        If the weights belong to another model, it has other classes, or it gives neither attention maps nor
        predictions.

    Examples
    --------
    >>> from speechbrain_bccmt.lobes.bccmt import bccmt_tiny
    >>> folder = getfixture("tmp_path")
    >>> torch.save(bccmt_tiny().state_dict(), folder / "embedding_model.ckpt")
    >>> teacher = load_teacher(folder, bccmt_tiny())
    >>> any(parameter.requires_grad for parameter in teacher.parameters())
    False
    """
    if classifier is None and not hasattr(model, "forward_with_attention"):
        raise ValueError(
            f"teacher {type(model).__name__} gives no attention maps: it lacks forward_with_attention"
        )
    parts = {name: model} | ({} if classifier is None else {"classifier": classifier})
    try:
        load_parameters(parts, source)
        labels = None if classifier is None or label_encoder is None else read_labels(source)
    except ValueError as error:
        raise ValueError(f"teacher {source}: {str(error).splitlines()[0]}") from error
    # A class number that means another speaker would mislead silently.
    if labels is not None and labels.lab2ind != label_encoder.lab2ind:
        raise ValueError(
            f"teacher {source}: its {len(labels)} classes are not the student's {len(label_encoder)}, or not in their "
            "order; train the teacher on the same data"
        )
    return FrozenTeacher(model, classifier)
