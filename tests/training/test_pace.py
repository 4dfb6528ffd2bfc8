"""Behaviour of training.pace: what a run prints and logs."""

import re

from tests.training.fitting import list_epochs
from training.run import read_history


def test_the_history_has_the_pace_and_the_learning_rate(whole):
    """With a row for each epoch in history.csv. TensorBoard has its logs."""
    run = whole.run
    assert list_epochs(run) == ["0", "1"]
    row = read_history(run)[0]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"} <= row.keys()
    assert row["images_per_second"] > 0
    assert list(run.glob("tensorboard/*/*"))


def test_a_log_has_one_line_per_epoch(whole):
    """With figures, pace and remaining time, but without a progress bar."""
    first, second = whole.printed.splitlines()
    figures = r"accuracy [\d.]+, loss [\d.]+, val_accuracy [\d.]+, val_loss [\d.]+, [\d,]+ images/s"
    assert re.fullmatch(rf"epoch 1/2: {figures}, learning rate [\d.e-]+, about \d+ seconds left", first)
    assert re.fullmatch(rf"epoch 2/2: {figures}, learning rate 0, about 0 seconds left", second)


def test_a_terminal_shows_a_progress_bar_and_the_pace(resumed):
    """The learning rate and the remaining time are in the line below Keras's bar."""
    _, printed = resumed
    assert re.findall(r"Epoch \d/2", printed) == ["Epoch 2/2"]
    assert "val_accuracy: " in printed
    assert "learning_rate:" not in printed
    assert re.search(r"^[\d,]+ images/s, learning rate 0, about 0 seconds left\n\Z", printed, re.MULTILINE)
