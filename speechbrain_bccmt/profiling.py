"""Size, multiply-accumulate operations and run time of an encoder, defined once for every table.

Operations are counted as in the literature on small speaker encoders: batch of one, evaluation mode,
convolutions, linear layers and matrix products only. The number of frames is always given with the figure: one
second of speech has 100 frames here (25 ms windows every 10 ms).
"""

from __future__ import annotations

import time
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

FRAMES_PER_SECOND = 100


def count_parameters(model: torch.nn.Module) -> int:
    """Count the trainable and frozen parameters of a model (buffers, such as running means, are left out).

    Parameters
    ----------
    model : torch.nn.Module
        The encoder with its pooling and embedding layer, without a classifier.

    Returns
    -------
    int
        Number of scalar parameters.

    Examples
    --------
    >>> count_parameters(torch.nn.Linear(80, 10))
    810
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: torch.nn.Module, frames: int = FRAMES_PER_SECOND, n_mels: int = 80) -> int:
    """Count the multiply-accumulate operations of one forward pass.

    Half of what ``torch.utils.flop_counter.FlopCounterMode`` counts (one multiply-accumulate is two
    floating-point operations). Normalisation, activations and additions are not counted, as is customary.

    Parameters
    ----------
    model : torch.nn.Module
        Encoder with ``forward(x)``, ``x`` of shape (batch, frames, mels).
    frames : int
        Length of the input in frames (100 frames are one second).
    n_mels : int
        Number of log-mel bands.

    Returns
    -------
    int
        Multiply-accumulate operations for a batch of one.

    Raises
    ------
    ValueError
        Where `frames` or `n_mels` is below one.

    Examples
    --------
    >>> count_macs(torch.nn.Linear(80, 10), frames=100)
    80000
    """
    features = _features(model, frames, n_mels)
    # The plain attention kernel is two matrix products, which every version of torch counts; some fused kernels are
    # missing from the counter's table and would count as zero.
    with _frozen(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(features)
    return counter.get_total_flops() // 2


def latency_ms(
    model: torch.nn.Module,
    frames: int = FRAMES_PER_SECOND,
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 5,
    n_mels: int = 80,
) -> float:
    """Measure the median time of one forward pass on a batch of one.

    Parameters
    ----------
    model : torch.nn.Module
        Encoder with ``forward(x)``, ``x`` of shape (batch, frames, mels), timed on its own device.
    frames : int
        Length of the input in frames (100 frames are one second).
    threads : int
        CPU threads that torch may use; the previous setting is restored afterwards.
    repeats : int
        Number of timed passes. The median is robust to other work on the machine.
    warmup : int
        Number of untimed passes beforehand.
    n_mels : int
        Number of log-mel bands.

    Returns
    -------
    float
        Median time in milliseconds.

    Raises
    ------
    ValueError
        Where `frames`, `n_mels`, `threads` or `repeats` is below one.

    Examples
    --------
    >>> latency_ms(torch.nn.Linear(80, 10), frames=100, repeats=3) > 0
    True
    """
    if threads < 1 or repeats < 1:
        raise ValueError(f"threads and repeats must be at least 1, got {threads} and {repeats}")
    features = _features(model, frames, n_mels)
    earlier_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _frozen(model):
            times = [_seconds(model, features) for _ in range(warmup + repeats)][warmup:]
    finally:
        torch.set_num_threads(earlier_threads)
    return 1000 * sorted(times)[len(times) // 2]


def _features(model: torch.nn.Module, frames: int, n_mels: int) -> torch.Tensor:
    """Return random features (1, frames, mels) on the device and in the type of the model."""
    if frames < 1 or n_mels < 1:
        raise ValueError(f"frames and n_mels must be at least 1, got {frames} and {n_mels}")
    parameter = next(model.parameters(), torch.empty(0))
    return torch.randn(1, frames, n_mels, device=parameter.device, dtype=parameter.dtype)


def _seconds(model: torch.nn.Module, features: torch.Tensor) -> float:
    """Time one pass; on a GPU, up to the end of its last kernel."""
    start = time.perf_counter()
    model(features)
    if features.is_cuda:
        torch.cuda.synchronize(features.device)
    return time.perf_counter() - start


@contextmanager
def _frozen(model: torch.nn.Module):
    """Switch to evaluation mode without gradients, and restore each module's own mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training
