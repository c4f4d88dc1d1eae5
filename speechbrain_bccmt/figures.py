"""Saving figures: one place that decides formats, resolution and reproducible bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from speechbrain_bccmt.files import temporary_sibling

FORMATS = (".png", ".svg", ".pdf")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure atomically, in the format of its path's suffix.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or Path
        The picture to write; replaced if it exists.

    Raises
    ------
    ValueError
        If the suffix is not one of `FORMATS`.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: pictures are written as {', '.join(FORMATS)}, not as '{path.suffix}'")
    # Text stays text in SVG; without the date and random ids, the same picture gives the same file.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "speechbrain_bccmt"}
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    with matplotlib.rc_context(settings), temporary_sibling(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata)
        temporary.replace(path)
