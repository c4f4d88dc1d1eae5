"""Graphs that compute with 8-bit integers instead of 32-bit floats; for smaller files alone, see `export.weights`.

Only convolutions without groups and linear layers are quantised: they hold most of the weights, and only they do
enough work to pay for the conversions. Measured on an AMD EPYC with AVX-512 VNNI, one thread, Tiny, 3 s, waveform to
embedding, onnxruntime 1.32, median of 60: floats 2.84 ms; these operators, static, 2.62 ms; with grouped convolutions
and attention's products, 3.20 ms; with the folded blocks' products as well, 3.77 ms; only the 2-D convolutions,
2.80 ms; signed 8-bit activations, 3.67 ms; dynamic, 4.77 ms with grouped convolutions and attention's products, and
1.07 times the floats' time without them. So 8 bits save a third or more of the file, but hardly any time at these
widths.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from speechbrain_bccmt.files import temporary_sibling
from speechbrain_bccmt.inference.embedding import read_utterance
from speechbrain_bccmt.inference.model_folder import SpeakerModel
from speechbrain_bccmt.sessions import load_session

METHODS = ("dynamic", "static")
# The operators with most of the weights and work. All others stay in floats.
OPERATORS = ["Conv", "Gemm"]


def quantise_dynamic(source: str | Path, target: str | Path) -> Path:
    """Store weights as 8-bit integers; activations are quantised at run time, by their current range.

    Parameters
    ----------
    source : str or Path
        An ONNX file from `export_onnx`.
    target : str or Path
        The file to write; replaced if it exists.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    ImportError
        If onnxruntime or onnx is not installed.
    """
    quantization = _import_quantization()
    with _quantising(source, target) as (prepared, temporary, excluded):
        quantization.quantize_dynamic(
            prepared,
            temporary,
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=excluded,
            weight_type=quantization.QuantType.QUInt8,
        )
    return Path(target)


def quantise_static(
    source: str | Path, target: str | Path, inputs: Iterable[np.ndarray], progress: bool = False
) -> Path:
    """Store weights as 8-bit integers and fix the ranges of activations to those measured on speech.

    Parameters
    ----------
    source : str or Path
        An ONNX file from `export_onnx`, made without lengths.
    target : str or Path
        The file to write; replaced if it exists.
    inputs : iterable of numpy.ndarray
        Typical inputs of the graph: (batch, samples) or (batch, frames, mels), float32, of speech. A hundred
        utterances are enough.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    ValueError
        If there are no inputs.
    ImportError
        If onnxruntime or onnx is not installed.
    """
    quantization = _import_quantization()
    names = [entry.name for entry in load_session(source, 1).get_inputs()]
    if len(names) > 1:
        raise ValueError(f"{source} has the inputs {', '.join(names)}: quantise a graph made without lengths")
    inputs = iter(tqdm(inputs, desc="Calibrating", unit="utt", disable=not progress))
    first = next(inputs, None)
    if first is None:
        raise ValueError("static quantisation needs speech to calibrate on, but there is none")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.waiting = [first]

        def get_next(self):
            value = self.waiting.pop() if self.waiting else next(inputs, None)
            return None if value is None else {names[0]: np.asarray(value, dtype=np.float32)}

    with _quantising(source, target) as (prepared, temporary, excluded):
        quantization.quantize_static(
            prepared,
            temporary,
            Reader(),
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=excluded,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            # Signed weights saturate in the 16-bit sums of CPUs without VNNI.
            weight_type=quantization.QuantType.QUInt8,
            extra_options={"CalibMovingAverage": True, "CalibMaxIntermediateOutputs": 32},
        )
    return Path(target)


def read_inputs(model: SpeakerModel, files: Iterable[Path], graph: str) -> Iterator[np.ndarray]:
    """Yield a graph's inputs, one recording at a time.

    Parameters
    ----------
    model : SpeakerModel
        The model of the graph.
    files : iterable of Path
        Recordings.
    graph : str
        "features", "waveform" or "sherpa".

    Yields
    ------
    numpy.ndarray
        (1, frames, mels) or (1, samples), float32.

    Raises
    ------
    ValueError
        If a recording cannot be read.
    """
    for file in files:
        wav = read_utterance({"ID": file.name, "wav": str(file)}, model.sample_rate)[None]
        yield (wav if graph == "waveform" else model.compute_features(wav)).numpy()


@contextlib.contextmanager
def _quantising(source: str | Path, target: str | Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the prepared graph, a temporary name for the result, and the nodes to skip; then copy the metadata."""
    import onnx

    quantization = _import_quantization()
    target = Path(target)
    # onnxruntime logs advice on each call, on the root logger.
    level = logging.getLogger().level
    with tempfile.TemporaryDirectory() as folder, temporary_sibling(target) as temporary:
        prepared = str(Path(folder, "prepared.onnx"))
        try:
            logging.getLogger().setLevel(logging.ERROR)
            quantization.shape_inference.quant_pre_process(str(source), prepared, skip_symbolic_shape=True)
            graph = onnx.load(prepared)
            # Powers of spectral bins span far more than 8 bits can resolve.
            excluded = [
                node.name for node in graph.graph.node if "/front_end/" in node.name or _groups(node) > 1
            ]
            yield prepared, str(temporary), excluded
        finally:
            logging.getLogger().setLevel(level)
        written = onnx.load(temporary)
        entries = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
        onnx.helper.set_model_props(written, {**entries, "quantised": "int8"})
        onnx.save(written, temporary)
        temporary.replace(target)


def _groups(node) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _import_quantization():
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization import shape_inference  # noqa: F401  not imported by the package itself
    except ImportError as error:
        raise ImportError(
            "quantisation needs the packages onnx and onnxruntime: pip install 'speechbrain_bccmt[onnx]'"
        ) from error
    return quantization
