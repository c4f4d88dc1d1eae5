"""Smaller files of the same graph: weights stored in 16 or 8 bits, and still computed with in 32.

Weights are converted back to 32 bits once, as runtimes fold that conversion when they load a graph. So it runs as fast
as the 32-bit graph, and an 8-bit weight is off by at most 1/254 of the largest in its output channel. For the effect on
error rates, see docs/other_runtimes.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from speechbrain_bccmt.export.onnx import import_onnx
from speechbrain_bccmt.files import temporary_sibling

STORED = ("float16", "int8")
# Smaller constants are biases and shapes, which add up to little.
FEWEST_VALUES = 512


def shrink_weights(source: str | Path, target: str | Path, stored: str) -> Path:
    """Store the weights of a graph in fewer bits.

    Parameters
    ----------
    source : str or Path
        An ONNX file from `export_onnx`.
    target : str or Path
        The file to write; replaced if it exists.
    stored : str
        "float16", or "int8": integers with one scale per output channel. The front end's constants are stored in
        16 bits either way.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    ValueError
        If `stored` is neither.
    ImportError
        If onnx is not installed.
    """
    onnx = import_onnx()
    if stored not in STORED:
        raise ValueError(f"weights are stored as {' or '.join(STORED)}, not as '{stored}'")
    target = Path(target)
    model = onnx.load(source)
    of_front_end = {
        name for node in model.graph.node if "/front_end/" in node.name for name in node.input
    }
    nodes = []
    for tensor in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < FEWEST_VALUES:
            continue
        model.graph.initializer.remove(tensor)
        scale = None
        if stored == "int8" and values.ndim > 1 and tensor.name not in of_front_end:
            scale = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / 127
            small = np.round(values / np.where(scale > 0, scale, 1)).astype(np.int8)
        else:
            small = values.astype(np.float16)
        small_name, scale_name = f"{tensor.name}.stored", f"{tensor.name}.scale"
        model.graph.initializer.append(onnx.numpy_helper.from_array(small, small_name))
        cast_to = tensor.name if scale is None else f"{tensor.name}.unscaled"
        nodes.append(onnx.helper.make_node("Cast", [small_name], [cast_to], to=onnx.TensorProto.FLOAT))
        if scale is not None:
            model.graph.initializer.append(onnx.numpy_helper.from_array(scale.astype(np.float32), scale_name))
            nodes.append(onnx.helper.make_node("Mul", [cast_to, scale_name], [tensor.name]))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    entry = model.metadata_props.add()
    entry.key, entry.value = "weights", stored
    onnx.checker.check_model(model)
    with temporary_sibling(target) as temporary:
        onnx.save(model, temporary)
        temporary.replace(target)
    return target
