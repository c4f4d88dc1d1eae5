"""Pictures of where a token looks: its weight over time, head by head, below the spectrogram of the utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure

from speechbrain_bccmt.attention.plots import draw_spectrogram

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
SPECTROGRAM_INCHES, HEAD_INCHES, EDGE_INCHES = 1.9, 0.55, 0.9


def draw_token_attention(
    features,
    weights_by_token: Mapping[str, object],
    seconds: float,
    time_stride: int = 1,
    tokens: int = 1,
    frequencies: Sequence[float] | None = None,
    title: str = "",
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Draw which frames a token attends to: a strip for each head, all on the time axis of the spectrogram.

    Each strip ends at its own highest weight, which is told on the right with what the head leaves to the tokens
    themselves. The dotted line is where all weights would be if the token looked everywhere alike, as the mean over the
    frames does.

    Parameters
    ----------
    features : array or tensor
        (frames, mels), the log-mel features of one utterance.
    weights_by_token : mapping of str to array or tensor
        What to call each group of strips, such as "class token", to the weights (heads, frames of the sequence) or
        (1, heads, frames of the sequence) that `TokenEmbedder.token_attention` gives.
    seconds : float
        Duration of the utterance.
    time_stride : int
        Frames of the features for one of the sequence, which is centred on the first of them.
    tokens : int
        How many tokens there are, which share what the frames do not get.
    frequencies : sequence of float or None
        Centre of each mel band in Hz; see `draw_spectrogram`.
    title : str
        Title of the picture.
    figure : matplotlib.figure.Figure, SubFigure or None
        What to draw into, with the layout "constrained"; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure
        The picture.

    Raises
    ------
    ValueError
        Where there is nothing to draw, or shapes, stride and duration do not go together.

    Examples
    --------
    >>> weights = np.random.default_rng(0).dirichlet(np.ones(51), 4)[:, 1:]  # four heads; a token and 50 frames
    >>> figure = draw_token_attention(np.random.rand(100, 80), {"class token": weights}, seconds=1.0, time_stride=2)
    >>> len(figure.axes)  # the spectrogram, and a strip for each head
    5
    """
    if seconds <= 0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    if not weights_by_token:
        raise ValueError("there is no token to draw")
    frames = len(features)
    expected = -(-frames // time_stride)
    groups = {name: _weights(name, weights, expected) for name, weights in weights_by_token.items()}
    strips = [(name, head, row) for name, rows in groups.items() for head, row in enumerate(rows)]
    # A frame of the sequence is centred on every time_stride-th one of the features, frame k of which is centred at
    # k + 0.5, and stands for half a stride on both sides.
    edges = np.clip((np.arange(expected + 1) - 0.5) * time_stride + 0.5, 0, frames) * seconds / frames
    edges[-1] = seconds

    if figure is None:
        figure = Figure(figsize=(7.5, picture_inches(len(strips), bool(title))), layout="constrained")
    panels = figure.subplots(
        1 + len(strips),
        1,
        squeeze=False,
        sharex=True,
        height_ratios=[SPECTROGRAM_INCHES] + [HEAD_INCHES] * len(strips),
    )[:, 0]
    draw_spectrogram(panels[0], features, seconds, frequencies)
    names = list(groups)
    if figure.get_layout_engine() is not None:
        figure.get_layout_engine().set(h_pad=0.02, hspace=0.01)
    for axes, (name, head, row) in zip(panels[1:], strips, strict=True):
        axes.stairs(row, edges, fill=True, color=COLOURS[names.index(name) % len(COLOURS)])
        axes.axhline(1 / expected, color="black", linewidth=0.7, linestyle=":")
        axes.set_ylim(0, max(row.max(), 1 / expected) * 1.1)
        axes.set_yticks([])
        axes.tick_params(axis="x", length=3 if axes is panels[-1] else 0)
        axes.grid(axis="x", color="0.85", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_ylabel(f"head {head + 1}", rotation=0, ha="right", va="center", fontsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        left = 100 * max(0.0, 1 - float(row.sum()))
        told = f"up to {100 * row.max():.1f} %\n{left:.1f} % on {'itself' if tokens == 1 else 'tokens'}"
        axes.text(1.01, 0.45, told, transform=axes.transAxes, va="center", fontsize=7)
        if head == 0:
            legend = f"{name}: weight of each frame; dotted: all frames alike"
            axes.set_title(legend, fontsize=8, loc="left", pad=3)
    panels[-1].set_xlabel("time (s)")
    panels[-1].set_xlim(0, seconds)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def picture_inches(n_strips: int, titled: bool = True) -> float:
    """Tell how high a picture with so many strips should be, in inches."""
    return SPECTROGRAM_INCHES + HEAD_INCHES * n_strips + EDGE_INCHES + 0.3 * titled


def _weights(name: str, weights, expected: int) -> np.ndarray:
    """Give the weights (heads, frames of the sequence) of one utterance."""
    weights = weights.detach().float().cpu().numpy() if hasattr(weights, "detach") else np.asarray(weights)
    if weights.ndim == 3 and len(weights) == 1:
        weights = weights[0]
    if weights.ndim != 2 or weights.shape[1] != expected or not weights.size:
        raise ValueError(
            f"{name}: expected weights (heads, {expected} frames) of one utterance, got {weights.shape}"
        )
    return weights
