"""Learning rate and margin as functions of the training step.

Both are stateless: a resumed run continues on the same curve.
"""

from __future__ import annotations

import math


def warmup_cosine(step: int, total_steps: int, warmup_steps: int, peak: float, final: float = 0.0) -> float:
    """Return the learning rate: linear from zero to `peak`, then half a cosine down to `final`.

    Parameters
    ----------
    step : int
        Optimiser steps so far.
    total_steps, warmup_steps : int
        Steps of the whole training and of the warm-up.
    peak, final : float
        Learning rates after the warm-up and at the end.

    Returns
    -------
    float
        Learning rate of the next step.

    Examples
    --------
    >>> [round(warmup_cosine(step, 10, 2, 1.0), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))


def linear_margin(epoch: float, start: float, end: float, margin: float) -> float:
    """Return the softmax margin: zero up to epoch `start`, then linear to `margin` at epoch `end`.

    Parameters
    ----------
    epoch : float
        Epochs so far, with their fraction.
    start, end : float
        Epochs between which the margin grows; a step if they are equal.
    margin : float
        Final margin in radians.

    Returns
    -------
    float
        Margin in radians.

    Examples
    --------
    >>> [linear_margin(epoch, 2, 4, 0.2) for epoch in (0, 2, 3, 4, 9)]
    [0.0, 0.0, 0.1, 0.2, 0.2]
    """
    if epoch < start:
        return 0.0
    if epoch >= end:
        return margin
    return margin * (epoch - start) / (end - start)
