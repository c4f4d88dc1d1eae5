"""Operators whose usual export is longer than they are."""

from __future__ import annotations

import torch
from torch import Tensor


class _Reshape(torch.autograd.Function):
    """`Tensor.reshape` in which 0 stands for the length of the input there, as it does in ONNX.

    An exported `x.reshape(x.shape[0], ...)` is some ten operators, which look that length up.
    """

    @staticmethod
    def forward(ctx, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.reshape([size or x.shape[axis] for axis, size in enumerate(shape)])

    @staticmethod
    def symbolic(g, x, shape):
        return g.op("Reshape", x, g.op("Constant", value_t=torch.tensor(shape)))


def reshape(x: Tensor, *shape: int) -> Tensor:
    """Reshape; 0 stands for the length of the input's axis, -1 for what is left."""
    return _Reshape.apply(x, shape)
