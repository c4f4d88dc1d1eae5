"""Arrays of any kind as NumPy arrays, without a need of PyTorch."""

from __future__ import annotations

import numpy as np


def as_array(values, dtype=None) -> np.ndarray:
    """Return numbers as a NumPy array; tensors of PyTorch, of any device and with gradients or not, as well.

    Parameters
    ----------
    values : array_like
        NumPy, PyTorch, or nested sequences of numbers.
    dtype : numpy.dtype or None
        Type of the result; None: as it comes, where bfloat16, which NumPy does not know, becomes float32.

    Returns
    -------
    numpy.ndarray
        Of the same shape. It may share memory with `values`.

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
