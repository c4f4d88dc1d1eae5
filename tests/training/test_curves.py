"""The training-curve picture and the log that it is drawn from."""

import matplotlib.image
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_bccmt.training.curves import plot_training_curves, read_train_log


def write_log(path, epochs):
    logger = FileTrainLogger(path, precision=3)
    for epoch in epochs:
        logger.log_stats(
            {"epoch": epoch, "lr": 0.002 / epoch, "margin": min(0.2, 0.01 * epoch)},
            train_stats={"loss": 8 / epoch, "speaker_loss": 7 / epoch, "attention_loss": 0.05 / epoch},
            valid_stats={"eer": 4 + 30 / epoch} if epoch % 2 == 0 else None,
            verbose=False,
        )


def test_the_log_is_read_back(tmp_path):
    write_log(tmp_path / "log.txt", [1, 2, 3])
    log = read_train_log(tmp_path / "log.txt")
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert log[1]["valid eer"] == 19 and "valid eer" not in log[0]
    assert log[2]["train attention_loss"] == 0.01667


def test_a_repeated_epoch_counts_once(tmp_path):
    write_log(tmp_path / "log.txt", [1, 2, 2, 3])
    assert [line["epoch"] for line in read_train_log(tmp_path / "log.txt")] == [1, 2, 3]


def test_losses_that_are_no_number_are_read(tmp_path):
    (tmp_path / "log.txt").write_text("epoch: 1, lr: 1.00e-03 - train loss: nan\n")
    plot_training_curves(tmp_path / "log.txt", tmp_path / "curves.png")


def test_the_picture_is_drawn(tmp_path):
    write_log(tmp_path / "log.txt", range(1, 41))
    plot_training_curves(tmp_path / "log.txt", tmp_path / "curves.png")
    picture = matplotlib.image.imread(tmp_path / "curves.png")
    assert picture.shape[0] > 300 and picture[..., :3].std() > 0.05


def test_every_loss_is_plotted(tmp_path, monkeypatch):
    (tmp_path / "log.txt").write_text(
        "epoch: 1, lr: 1.00e-03 - train loss: 4.50, train seconds: 2, train attention_loss: 0.1, "
        "train new_kind_loss: 3 - valid eer: 12.30\n"
    )
    plotted = []
    monkeypatch.setattr("speechbrain_bccmt.figures.save_figure", lambda figure, path: plotted.append(figure))
    plot_training_curves(tmp_path / "log.txt", tmp_path / "curves.png")
    titles = {axes.get_title() for axes in plotted[0].axes}
    assert titles == {
        "training loss",
        "attention-map loss (nats)",
        "new kind loss",
        "dev EER (%)",
        "learning rate",
    }
