"""Pictures of attention maps, systems side by side, one row for each compared block; and of what they attend to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure

# Where the axis of a spectrogram has its ticks, as far as the mel bands reach.
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000)


def plot_attention_maps(
    maps_by_system: Mapping[str, Sequence],
    path: str | Path,
    seconds: float,
    row_titles: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw attention maps into a file; see `draw_attention_maps`, which gets all but the path.

    Parameters
    ----------
    maps_by_system, seconds, row_titles, title
        See `draw_attention_maps`.
    path : str or Path
        The PNG to write.

    Examples
    --------
    >>> maps = np.random.default_rng(0).dirichlet(np.ones(50), (4, 100))
    >>> path = getfixture("tmp_path") / "maps.png"
    >>> plot_attention_maps({"student": [maps]}, path, seconds=2.0)
    >>> path.exists()
    True
    """
    draw_attention_maps(maps_by_system, seconds, row_titles, title).savefig(path, dpi=130)


def draw_attention_maps(
    maps_by_system: Mapping[str, Sequence],
    seconds: float,
    row_titles: Sequence[str] | None = None,
    title: str = "",
    features=None,
    frequencies: Sequence[float] | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Draw which key frames each query frame attends to, on axes of seconds.

    Heads are averaged, as attention-map distillation does where the number of heads differs. Within a row all
    systems share one colour scale, so that equal colours are equal weights; the scale ends at the 99.5th
    percentile, because a single strong weight would darken all others.

    Parameters
    ----------
    maps_by_system : mapping of str to sequence
        Name of each system to its maps of one utterance, one for each row of the picture. Each map is
        (heads, query frames, key frames) or (1, heads, query frames, key frames), array or tensor.
    seconds : float
        Duration of the utterance: query and key frames both span it.
    row_titles : sequence of str, optional
        One for each row; by default "block 1", "block 2" and so on.
    title : str
        Title of the picture.
    features : array, tensor or None
        (frames, mels): the spectrogram of the utterance, drawn above each column.
    frequencies : sequence of float or None
        See `draw_spectrogram`.
    figure : matplotlib.figure.Figure, SubFigure or None
        What to draw into, with the layout "constrained"; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure
        The picture.

    Raises
    ------
    ValueError
        Where there is nothing to draw, systems differ in their number of maps, a map has another shape, or
        `seconds` is not positive.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> teacher, student = ([rng.dirichlet(np.ones(50), (heads, 100))] for heads in (4, 2))
    >>> len(draw_attention_maps({"teacher": teacher, "student": student}, seconds=2.0).axes)  # with the colour scale
    3
    """
    if seconds <= 0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    pictures = {
        name: [_head_mean(name, weights) for weights in maps] for name, maps in maps_by_system.items()
    }
    counts = {name: len(maps) for name, maps in pictures.items()}
    n_rows = max(counts.values(), default=0)
    if n_rows == 0 or len(set(counts.values())) != 1:
        raise ValueError(f"each system needs the same number of maps, at least one: got {counts}")
    row_titles = row_titles or [f"block {row + 1}" for row in range(n_rows)]
    if len(row_titles) != n_rows:
        raise ValueError(f"{n_rows} rows of maps have {len(row_titles)} titles")

    above = [] if features is None else [0.6]
    rows = n_rows + len(above)
    if figure is None:
        size = 2.6 * len(pictures) + 1.2, 2.3 * (n_rows + sum(above)) + 0.6
        figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(
        rows,
        len(pictures),
        squeeze=False,
        sharex=True,
        sharey="row" if above else True,
        height_ratios=above + [1] * n_rows,
    )
    if above:
        for axes, name in zip(grid[0], pictures, strict=True):
            draw_spectrogram(axes, features, seconds, frequencies)
            axes.set_title(name, fontsize=10)
            axes.label_outer()
    for row, row_axes in enumerate(grid[len(above) :]):
        top = np.percentile(np.concatenate([maps[row].ravel() for maps in pictures.values()]), 99.5)
        for axes, (name, maps) in zip(row_axes, pictures.items(), strict=True):
            # Time runs to the right for the attended frames and downwards for the attending ones.
            image = axes.imshow(
                maps[row], aspect="auto", cmap="magma", vmin=0, vmax=top, extent=(0, seconds, seconds, 0)
            )
            if row == 0 and not above:
                axes.set_title(name, fontsize=10)
            if row == n_rows - 1:
                axes.set_xlabel("attended time (s)")
        row_axes[0].set_ylabel(f"{row_titles[row]}\nattending time (s)")
        bar = figure.colorbar(image, ax=list(row_axes), pad=0.01, aspect=15, extend="max")
        bar.set_label("weight", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def draw_spectrogram(axes, features, seconds: float, frequencies: Sequence[float] | None = None) -> None:
    """Draw log-mel features on an axis of seconds.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    features : array or tensor
        (frames, mels), on a logarithmic scale; what is fainter than all but 5 % of it is dark.
    seconds : float
        Duration of the utterance, which the frames span.
    frequencies : sequence of float or None
        Centre of each mel band in Hz, rising, see `speechbrain_bccmt.features.band_frequencies`; None: the axis
        counts the bands.

    Raises
    ------
    ValueError
        If the features are not those of one utterance, or the frequencies not those of their bands.

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


def _to_numpy(values) -> np.ndarray:
    return values.detach().float().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _head_mean(name: str, weights) -> np.ndarray:
    """Return the mean over heads (query frames, key frames) of the map of one utterance."""
    weights = _to_numpy(weights)
    if weights.ndim == 4 and len(weights) == 1:
        weights = weights[0]
    if weights.ndim != 3:
        raise ValueError(
            f"{name}: a map must be (heads, query frames, key frames) of one utterance, got {weights.shape}"
        )
    return weights.mean(axis=0)


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

    Each strip ends at its own highest weight, which stands on the right with what the head leaves to the tokens
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
    """Return how high a picture with so many strips should be, in inches."""
    return SPECTROGRAM_INCHES + HEAD_INCHES * n_strips + EDGE_INCHES + 0.3 * titled


def _weights(name: str, weights, expected: int) -> np.ndarray:
    """Return the weights (heads, frames of the sequence) of one utterance."""
    weights = weights.detach().float().cpu().numpy() if hasattr(weights, "detach") else np.asarray(weights)
    if weights.ndim == 3 and len(weights) == 1:
        weights = weights[0]
    if weights.ndim != 2 or weights.shape[1] != expected or not weights.size:
        raise ValueError(
            f"{name}: expected weights (heads, {expected} frames) of one utterance, got {weights.shape}"
        )
    return weights
