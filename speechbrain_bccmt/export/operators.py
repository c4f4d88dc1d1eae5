"""Operators whose default export is needlessly long."""

from __future__ import annotations

import torch
from torch import Tensor


class _Reshape(torch.autograd.Function):
    """`Tensor.reshape` in which 0 keeps the length of the input's axis, as in ONNX.

    An exported `x.reshape(x.shape[0], ...)` takes some ten operators to look that length up.
    """

    @staticmethod
    def forward(ctx, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.reshape([size or x.shape[axis] for axis, size in enumerate(shape)])

    @staticmethod
    def symbolic(g, x, shape):
        return g.op("Reshape", x, g.op("Constant", value_t=torch.tensor(shape)))


def reshape(x: Tensor, *shape: int) -> Tensor:
    """Reshape; 0 keeps the length of the input's axis, -1 is inferred."""
    return _Reshape.apply(x, shape)
