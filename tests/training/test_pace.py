"""Behaviour of training.pace: what a run prints and logs."""

import re

from tests.training.fitting import list_epochs
from training.run import read_history


def test_history_tells_pace_and_learning_rate(whole):
    """history.csv has a row an epoch, with what a person follows a run by; TensorBoard has its logs."""
    run = whole.run
    assert list_epochs(run) == ["0", "1"]
    row = read_history(run)[0]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"} <= row.keys()
    assert row["images_per_second"] > 0
    assert list(run.glob("tensorboard/*/*"))


def test_a_log_has_one_line_an_epoch(whole):
    """No bar, whose carriage returns and colours a file would keep: figures, pace and time left."""
    first, second = whole.printed.splitlines()
    figures = r"accuracy [\d.]+, loss [\d.]+, val_accuracy [\d.]+, val_loss [\d.]+, [\d,]+ images/s"
    assert re.fullmatch(rf"epoch 1/2: {figures}, learning rate [\d.e-]+, about \d+ seconds left", first)
    assert re.fullmatch(rf"epoch 2/2: {figures}, learning rate 0, about 0 seconds left", second)


def test_a_person_can_read_how_it_goes(resumed):
    """On a terminal Keras's bar with its own figures; pace, learning rate and time left in words, not in its format."""
    _, printed = resumed
    assert re.findall(r"Epoch \d/2", printed) == ["Epoch 2/2"]
    assert "val_accuracy: " in printed
    assert "learning_rate:" not in printed
    assert re.search(r"^[\d,]+ images/s, learning rate 0, about 0 seconds left\n\Z", printed, re.MULTILINE)
