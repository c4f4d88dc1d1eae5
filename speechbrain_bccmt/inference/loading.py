"""Loading a model with the engine that runs it: ONNX Runtime if it ships a graph, PyTorch otherwise."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from speechbrain_bccmt.inference.graph import GraphVerifier
from speechbrain_bccmt.inference.model_files import CONFIG_FILE, GRAPH_FILE, HPARAMS_FILE, find_file
from speechbrain_bccmt.inference.verifier import Verifier
from speechbrain_bccmt.models import DEFAULT

logger = logging.getLogger(__name__)

ENGINES = ("auto", "onnx", "torch")


def load_verifier(
    source: str | Path = DEFAULT, engine: str = "auto", device: str = "cpu", vad: bool = True
) -> Verifier:
    """Load a model to embed and verify with.

    Parameters
    ----------
    source : str or Path
        See `load_speaker_model`.
    engine : str
        "onnx": ONNX Runtime, with the graph that the model ships. "torch": PyTorch. "auto": ONNX Runtime on the CPU if
        the model ships a sound graph, else PyTorch. Embeddings and voiceprints of both can be compared.
    device : str
        Where PyTorch runs; ONNX Runtime runs on the CPU.
    vad : bool
        Embed only the speech of files; False: whole files, as for trial lists.

    Returns
    -------
    Verifier
        A `GraphVerifier` or a `SpeakerVerification`.

    Raises
    ------
    OSError, ValueError
        If the model cannot be loaded, or the engine cannot run it on that device.
    ImportError
        If PyTorch is needed and not installed.

    Examples
    --------
    >>> load_verifier("tiny").engine, load_verifier("tiny", "torch").engine
    ('onnx', 'torch')
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is '{engine}', expected one of {', '.join(ENGINES)}")
    if engine == "onnx" and device != "cpu":
        raise ValueError(
            f"ONNX Runtime runs on the CPU here, not on '{device}': leave out one of engine and device"
        )
    file_of_another_toolkit = str(source).endswith(".onnx")
    if engine == "onnx" and file_of_another_toolkit:
        raise ValueError(
            f"{source}: the features of a file of another toolkit are PyTorch's: leave out the engine"
        )
    has_torch = all(map(importlib.util.find_spec, ("torch", "speechbrain_bccmt.inference.verification")))
    if engine != "torch" and device == "cpu" and not file_of_another_toolkit:
        if engine == "onnx" or find_file(source, GRAPH_FILE, needed=False) is not None:
            try:
                return GraphVerifier.load(source, vad)
            except (ImportError, ValueError) as error:
                if engine == "onnx" or not has_torch:
                    raise
                logger.warning(f"{error}. PyTorch runs the model instead")
    if not has_torch:
        if not file_of_another_toolkit and find_file(source, HPARAMS_FILE, needed=False) is None:
            find_file(source, CONFIG_FILE)  # raises if the place holds no model at all
        raise ImportError(
            f"the model '{source}' needs PyTorch here ({GRAPH_FILE} is what runs without): pip install "
            "speechbrain_bccmt, or publish the model with its graph, by `bccmt export hub`"
        )
    import torch

    from speechbrain_bccmt.inference.verification import SpeakerVerification

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    return SpeakerVerification.from_hparams(source, run_opts={"device": device}, vad=vad)
