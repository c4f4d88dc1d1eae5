"""Plots of attention: maps of several systems side by side, and token weights, below the spectrogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure

# Ticks of a spectrogram's frequency axis, within the range of the mel bands.
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000)
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
SPECTROGRAM_INCHES, HEAD_INCHES, EDGE_INCHES = 1.9, 0.55, 0.9


def draw_attention_maps(
    maps_by_system: Mapping[str, Sequence],
    seconds: float,
    row_titles: Sequence[str] | None = None,
    title: str = "",
    features=None,
    frequencies: Sequence[float] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Plot which key frames each query frame attends to, with axes in seconds.

    Heads are averaged, as in attention-map distillation with different numbers of heads. All systems in a row
    share one colour scale, so equal colours mean equal weights; the scale ends at the 99.5th percentile, because
    a single strong weight would darken all others.

    Parameters
    ----------
    maps_by_system : mapping of str to sequence
        Maps each system's name to its maps of one utterance, one per row. Each map is (heads, query frames, key
        frames) or (1, heads, query frames, key frames), array or tensor.
    seconds : float
        Duration of the utterance: query and key frames both span it.
    row_titles : sequence of str, optional
        One per row; by default "block 1", "block 2" and so on.
    title : str
        Title of the figure.
    features : array, tensor or None
        (frames, mels): the spectrogram of the utterance, plotted above each column.
    frequencies : sequence of float or None
        See `draw_spectrogram`.
    figure : matplotlib.figure.Figure, SubFigure or None
        What to draw into, with the layout "constrained"; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure
        The figure.

    Raises
    ------
    ValueError
        If there are no maps, systems differ in their number of maps, a map has the wrong shape, or `seconds` is not
        positive.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> teacher, student = ([rng.dirichlet(np.ones(50), (heads, 100))] for heads in (4, 2))
    >>> len(draw_attention_maps({"teacher": teacher, "student": student}, seconds=2.0).axes)  # with the colour scale
    3
    """
    _check_seconds(seconds)
    means = {
        name: [
            _one_utterance(weights, 3, f"{name}: a map must be (heads, query frames, key frames)").mean(
                axis=0
            )
            for weights in maps
        ]
        for name, maps in maps_by_system.items()
    }
    counts = {name: len(maps) for name, maps in means.items()}
    n_rows = max(counts.values(), default=0)
    if n_rows == 0 or len(set(counts.values())) != 1:
        raise ValueError(f"each system needs the same number of maps, at least one: got {counts}")
    row_titles = row_titles or [f"block {row + 1}" for row in range(n_rows)]
    if len(row_titles) != n_rows:
        raise ValueError(f"{n_rows} rows of maps have {len(row_titles)} titles")

    above = [] if features is None else [0.6]
    if figure is None:
        size = 2.6 * len(means) + 1.2, 2.3 * (n_rows + sum(above)) + 0.6
        figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        n_rows + len(above),
        len(means),
        squeeze=False,
        sharex=True,
        sharey="row" if above else True,
        height_ratios=above + [1] * n_rows,
    )
    for axes, name in zip(grid[0], means, strict=True):
        if above:
            draw_spectrogram(axes, features, seconds, frequencies)
            axes.label_outer()
        axes.set_title(name, fontsize=10)
    for row, row_axes in enumerate(grid[len(above) :]):
        top = np.percentile(np.concatenate([maps[row].ravel() for maps in means.values()]), 99.5)
        for axes, maps in zip(row_axes, means.values(), strict=True):
            # Time runs to the right for the attended (key) frames and downwards for the attending (query) ones.
            image = axes.imshow(
                maps[row], aspect="auto", cmap="magma", vmin=0, vmax=top, extent=(0, seconds, seconds, 0)
            )
            if row == n_rows - 1:
                axes.set_xlabel("attended time (s)")
        row_axes[0].set_ylabel(f"{row_titles[row]}\nattending time (s)")
        bar = figure.colorbar(image, ax=list(row_axes), pad=0.01, aspect=15, extend="max")
        bar.set_label("weight", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


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
    """Plot which frames a token attends to: one strip per head, on the time axis of the spectrogram.

    Each strip is scaled to its own highest weight, shown on the right with the head's weight on the tokens themselves.
    The dotted line is the weight of a frame if the token attended to all equally, as mean pooling does.

    Parameters
    ----------
    features : array or tensor
        (frames, mels), the log-mel features of one utterance.
    weights_by_token : mapping of str to array or tensor
        Maps the name of each group of strips, such as "class token", to the weights (heads, frames of the sequence)
        or (1, heads, frames of the sequence) that `TokenEmbedder.token_attention` returns.
    seconds : float
        Duration of the utterance.
    time_stride : int
        Feature frames per frame of the sequence, which is centred on the first of them.
    tokens : int
        Number of tokens, which share the weight not on the frames.
    frequencies : sequence of float or None
        See `draw_spectrogram`.
    title : str
        Title of the figure.
    figure : matplotlib.figure.Figure, SubFigure or None
        What to draw into, with the layout "constrained"; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure
        The figure.

    Raises
    ------
    ValueError
        If there are no weights, or shapes, stride and duration do not match.

    Examples
    --------
    >>> weights = np.random.default_rng(0).dirichlet(np.ones(51), 4)[:, 1:]  # four heads; a token and 50 frames
    >>> figure = draw_token_attention(np.random.rand(100, 80), {"class token": weights}, seconds=1.0, time_stride=2)
    >>> len(figure.axes)  # the spectrogram, and a strip for each head
    5
    """
    _check_seconds(seconds)
    if not weights_by_token:
        raise ValueError("there is no token to plot")
    frames = len(features)
    expected = -(-frames // time_stride)
    strips = []
    for index, (name, weights) in enumerate(weights_by_token.items()):
        rows = _one_utterance(weights, 2, f"{name}: expected weights (heads, {expected} frames)")
        if rows.shape[1] != expected or not rows.size:
            raise ValueError(f"{name}: expected weights (heads, {expected} frames), got {rows.shape}")
        strips += [(name, COLOURS[index % len(COLOURS)], head, row) for head, row in enumerate(rows)]
    # A frame of the sequence is centred on every time_stride-th feature frame (feature frame k is centred at k + 0.5),
    # and covers half a stride on either side.
    edges = np.clip((np.arange(expected + 1) - 0.5) * time_stride + 0.5, 0, frames) * seconds / frames
    edges[-1] = seconds

    if figure is None:
        figure = Figure(figsize=(7.5, strips_height(len(strips), bool(title))), layout="constrained")
    panels = figure.subplots(
        1 + len(strips),
        1,
        squeeze=False,
        sharex=True,
        height_ratios=[SPECTROGRAM_INCHES] + [HEAD_INCHES] * len(strips),
    )[:, 0]
    draw_spectrogram(panels[0], features, seconds, frequencies)
    if figure.get_layout_engine() is not None:
        figure.get_layout_engine().set(h_pad=0.02, hspace=0.01)
    for axes, (name, colour, head, row) in zip(panels[1:], strips, strict=True):
        axes.stairs(row, edges, fill=True, color=colour)
        axes.axhline(1 / expected, color="black", linewidth=0.7, linestyle=":")
        axes.set_ylim(0, max(row.max(), 1 / expected) * 1.1)
        axes.set_yticks([])
        axes.tick_params(axis="x", length=3 if axes is panels[-1] else 0)
        axes.grid(axis="x", color="0.85", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_ylabel(f"head {head + 1}", rotation=0, ha="right", va="center", fontsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        left = 100 * max(0.0, 1 - float(row.sum()))
        note = f"up to {100 * row.max():.1f} %\n{left:.1f} % on {'itself' if tokens == 1 else 'tokens'}"
        axes.text(1.01, 0.45, note, transform=axes.transAxes, va="center", fontsize=7)
        if head == 0:
            axes.set_title(
                f"{name}: weight of each frame; dotted: all frames alike", fontsize=8, loc="left", pad=3
            )
    panels[-1].set_xlabel("time (s)")
    panels[-1].set_xlim(0, seconds)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def draw_spectrogram(axes, features, seconds: float, frequencies: Sequence[float] | None = None) -> None:
    """Plot log-mel features, with the time axis in seconds.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    features : array or tensor
        (frames, mels), log-mel; the faintest 5 % has the darkest colour.
    seconds : float
        Duration of the utterance, which the frames span.
    frequencies : sequence of float or None
        Centre of each mel band in Hz, ascending, see `speechbrain_bccmt.features.band_frequencies`; None: the axis
        counts the bands.

    Raises
    ------
    ValueError
        If the features are not those of one utterance, or there is not one frequency per band.

    Examples
    --------
    >>> axes = Figure().subplots()
    >>> draw_spectrogram(axes, np.zeros((100, 4)), 1.0, [200, 900, 2300, 5000])
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['250', '500', '1k', '2k', '4k']
    """
    features = _to_numpy(features)
    if features.ndim != 2 or not features.size:
        raise ValueError(f"features must be (frames, mels) of one utterance, got {features.shape}")
    n_mels = features.shape[1]
    low, high = np.percentile(features, 5), features.max()
    axes.imshow(
        features.T,
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(0, seconds, 0, n_mels),
    )
    if frequencies is None:
        axes.set_ylabel("mel band")
        return
    if len(frequencies) != n_mels:
        raise ValueError(f"{n_mels} mel bands have {len(frequencies)} frequencies")
    shown = [hz for hz in TICKS_HZ if frequencies[0] <= hz <= frequencies[-1]]
    # The middle of band k lies at k + 0.5.
    axes.set_yticks(np.interp(shown, frequencies, np.arange(n_mels) + 0.5))
    axes.set_yticklabels([f"{hz // 1000}k" if hz >= 1000 else str(hz) for hz in shown])
    axes.set_ylabel("frequency (Hz)")


def strips_height(n_strips: int, titled: bool = True) -> float:
    """Return the height of a figure with `n_strips` strips, in inches."""
    return SPECTROGRAM_INCHES + HEAD_INCHES * n_strips + EDGE_INCHES + 0.3 * titled


def _check_seconds(seconds: float) -> None:
    if seconds <= 0:
        raise ValueError(f"seconds must be positive, got {seconds}")


def _to_numpy(values) -> np.ndarray:
    return values.detach().float().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _one_utterance(weights, ndim: int, expected: str) -> np.ndarray:
    """Return weights with `ndim` axes, without the axis of a batch of one."""
    weights = _to_numpy(weights)
    if weights.ndim == ndim + 1 and len(weights) == 1:
        weights = weights[0]
    if weights.ndim != ndim:
        raise ValueError(f"{expected} of one utterance, got {weights.shape}")
    return weights
