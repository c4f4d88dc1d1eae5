"""Pictures of attention maps: systems side by side, one row for each compared block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


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
) -> Figure:
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

    Returns
    -------
    matplotlib.figure.Figure
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

    figure = Figure(figsize=(2.6 * len(pictures) + 1.2, 2.3 * n_rows + 0.6), layout="constrained")
    grid = figure.subplots(n_rows, len(pictures), squeeze=False, sharex=True, sharey=True)
    for row, row_axes in enumerate(grid):
        top = np.percentile(np.concatenate([maps[row].ravel() for maps in pictures.values()]), 99.5)
        for axes, (name, maps) in zip(row_axes, pictures.items(), strict=True):
            # Time runs to the right for the attended frames and downwards for the attending ones.
            image = axes.imshow(
                maps[row], aspect="auto", cmap="magma", vmin=0, vmax=top, extent=(0, seconds, seconds, 0)
            )
            if row == 0:
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


def _head_mean(name: str, weights) -> np.ndarray:
    """Return the mean over heads (query frames, key frames) of the map of one utterance."""
    weights = weights.detach().float().cpu().numpy() if hasattr(weights, "detach") else np.asarray(weights)
    if weights.ndim == 4 and len(weights) == 1:
        weights = weights[0]
    if weights.ndim != 3:
        raise ValueError(
            f"{name}: a map must be (heads, query frames, key frames) of one utterance, got {weights.shape}"
        )
    return weights.mean(axis=0)
