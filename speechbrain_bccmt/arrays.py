"""Conversion of any kind of array to NumPy, without requiring PyTorch."""

from __future__ import annotations

import numpy as np


def as_array(values, dtype=None) -> np.ndarray:
    """Return numbers as a NumPy array; PyTorch tensors too, on any device and with or without gradients.

    Parameters
    ----------
    values : array_like
        NumPy, PyTorch, or nested sequences of numbers.
    dtype : numpy.dtype or None
        Type of the result; None: unchanged, except that bfloat16, which NumPy lacks, becomes float32.

    Returns
    -------
    numpy.ndarray
        Array of the same shape, which may share memory with `values`.

    Examples
    --------
    >>> import torch
    >>> as_array(torch.ones(2, requires_grad=True)), as_array([1, 2], np.float32)
    (array([1., 1.], dtype=float32), array([1., 2.], dtype=float32))
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return np.asarray(values, dtype=dtype)
