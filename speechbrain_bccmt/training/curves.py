"""The training-curve picture, drawn from train_log.txt."""

from __future__ import annotations

import re
from pathlib import Path

NUMBER = r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|inf|nan)"
FIELD = re.compile(rf"([a-z]\w*(?: [a-z]\w*)*): ({NUMBER})")
TITLES = {
    "train loss": "training loss",
    "train speaker_loss": "speaker loss",
    "train attention_loss": "attention-map loss (nats)",
    "train embedding_loss": "embedding loss",
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
        One per epoch in order, name to value. Where an epoch was repeated after an interruption, its last
        line counts.

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
    """Draw losses, dev EER, learning rate and margin over the epochs.

    Parameters
    ----------
    train_log : str or Path
        The train_log.txt.
    picture : str or Path
        The file to write.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "log.txt").write_text("epoch: 1, lr: 1.00e-03 - train loss: 4.50\\n")
    >>> plot_training_curves(folder / "log.txt", folder / "curves.png")
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = read_train_log(train_log)
    names = [name for name in TITLES if any(name in epoch for epoch in epochs)]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for position, name in enumerate(names, start=1):
        points = [(epoch["epoch"], epoch[name]) for epoch in epochs if name in epoch]
        axes = figure.add_subplot(rows, columns, position)
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 30 else None, markersize=3)
        axes.set_title(TITLES[name], fontsize=10)
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
    figure.savefig(picture, dpi=120)
