"""Training curves, plotted from train_log.txt."""

from __future__ import annotations

import re
from pathlib import Path

NUMBER = r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|inf|nan)"
FIELD = re.compile(rf"([a-z]\w*(?: [a-z]\w*)*): ({NUMBER})")
TITLES = {
    "train loss": "training loss",
    "train attention_loss": "attention-map loss (nats)",
    "valid eer": "dev EER (%)",
    "lr": "learning rate",
    "margin": "margin (rad)",
}


def read_train_log(path) -> list[dict[str, float]]:
    """Read the epochs that a `FileTrainLogger` wrote.

    Parameters
    ----------
    path : str or Path
        The train_log.txt.

    Returns
    -------
    list of dict
        One per epoch in order, name to value. The last line of a repeated epoch counts.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> _ = path.write_text("epoch: 1, lr: 1.00e-03 - train loss: 4.50 - valid eer: 12.30\\n")
    >>> read_train_log(path)
    [{'epoch': 1.0, 'lr': 0.001, 'train loss': 4.5, 'valid eer': 12.3}]
    """
    epochs = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        values = {name: float(value) for name, value in FIELD.findall(line)}
        if "epoch" in values:
            epochs[values["epoch"]] = values
    return [epochs[epoch] for epoch in sorted(epochs)]


def plot_training_curves(train_log, picture) -> None:
    """Plot losses, dev EER, learning rate and margin over the epochs.

    Parameters
    ----------
    train_log : str or Path
        The train_log.txt.
    picture : str or Path
        Written as PNG, SVG or PDF.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "log.txt").write_text("epoch: 1, lr: 1.00e-03 - train loss: 4.50\\n")
    >>> plot_training_curves(folder / "log.txt", folder / "curves.png")
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from speechbrain_bccmt.figures import save_figure

    epochs = read_train_log(train_log)
    found = dict.fromkeys(name for epoch in epochs for name in epoch)
    parts = {name: name[6:].replace("_", " ") for name in found if re.fullmatch(r"train \w+_loss", name)}
    titles = {name: title for name, title in (TITLES | parts | TITLES).items() if name in found}
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    for position, (name, title) in enumerate(titles.items(), start=1):
        points = [(epoch["epoch"], epoch[name]) for epoch in epochs if name in epoch]
        axes = figure.add_subplot(rows, columns, position)
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 30 else None, markersize=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if name == "valid eer":
            best = min(points, key=lambda point: point[1])
            axes.plot(*best, "o", color="tab:red")
            axes.annotate(
                f"{best[1]:.2f} %", best, textcoords="offset points", xytext=(0, 8), ha="center", fontsize=9
            )
            axes.margins(y=0.15)
    save_figure(figure, picture)
