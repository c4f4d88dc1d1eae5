"""A model by the ONNX graph that it ships, several times faster than PyTorch on a CPU thread."""

from __future__ import annotations

import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor

from speechbrain_bccmt.inference.foreign import OnnxEncoder
from speechbrain_bccmt.inference.parameters import find_file
from speechbrain_bccmt.inference.verification import SpeakerVerification

logger = get_logger(__name__)

GRAPH_FILE = "sherpa.onnx"
# Cosine of the graph's embedding of a noise with the network's, below which it is no graph of that network.
SAME = 0.9999


class GraphEncoder(OnnxEncoder):
    """The graph of `bccmt export onnx --graph sherpa` on the features of the model's own front end.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    OSError, ImportError, ValueError
        As `OnnxEncoder`.
    """

    def embed(self, features: Tensor) -> Tensor:
        """Embed utterances of one length."""
        # The graph leaves out the last frame, which sherpa-onnx alone computes.
        return super().embed(torch.cat([features, features[:, -1:]], dim=1))


def use_graph(model: SpeakerVerification) -> bool:
    """Let ONNX Runtime embed, if the model is on the CPU and ships a graph of itself.

    Parameters
    ----------
    model : SpeakerVerification
        Its encoder is replaced.

    Returns
    -------
    bool
        Whether it is. Without a graph, or without ONNX Runtime, PyTorch goes on; so it does where graph and network
        disagree about a second of noise, with a warning.

    Examples
    --------
    >>> model = SpeakerVerification.from_hparams("tiny")
    >>> before = model.embed(torch.randn(20000, generator=torch.Generator().manual_seed(0)))
    >>> use_graph(model)
    True
    >>> after = model.embed(torch.randn(20000, generator=torch.Generator().manual_seed(0)))
    >>> torch.cosine_similarity(before, after, dim=0).item() > 0.9999
    True
    """
    if torch.device(model.device).type != "cpu" or model.source.endswith(".onnx"):
        return False
    path = find_file(model.source, GRAPH_FILE, needed=False)
    if path is None:
        return False
    try:
        encoder = GraphEncoder(path)
    except ImportError:
        return False
    noise = 0.1 * torch.randn(model.sample_rate, generator=torch.Generator().manual_seed(0))
    network, expected = model.mods.embedding_model, model.embed(noise)
    model.mods.embedding_model = encoder
    try:
        found = model.embed(noise)
    except Exception:  # ONNX Runtime raises classes of its own where the features are others
        found = torch.zeros(0)
    if found.shape == expected.shape and torch.cosine_similarity(found, expected, dim=0) >= SAME:
        return True
    logger.warning(f"{path} is of another network than the model's, and is not used")
    model.mods.embedding_model = network
    return False
