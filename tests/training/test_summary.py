"""Behaviour of training.summary."""

from dataclasses import replace

import numpy as np

from tests.training.images import CLASSES, draw_split
from training.data import Data, Split
from training.summary import count_copies, summarize

TRAIN, TEST = draw_split(12, seed=0), draw_split(2, seed=1)
DATA = Data("shapes", "drawn", "png", CLASSES, TRAIN, TEST, notes=("read shapes/<class>/*",))


def test_the_report_counts_the_images_of_each_class():
    """By split. It also says how the folder was read, and the accuracy without any training."""
    text = summarize(replace(DATA, test=Split(TEST.images[:5], TEST.labels[:5])), TRAIN, draw_split(3, seed=2))
    assert "| disc | 12 | 3 | 2 |\n" in text
    assert "| all | 36 | 9 | 5 |\n" in text
    assert "- read shapes/<class>/*\n" in text
    assert "- baseline: always predicting 'disc', 40.0 %\n" in text
    assert "copies" not in text
    assert "few images" not in text


def test_small_classes_are_reported():
    """Fewer than ten training images teach little."""
    text = summarize(DATA, Split(TRAIN.images[:25], TRAIN.labels[:25]), TEST)
    assert "- few images: class 'stripes' has 1 to train on\n" in text


def test_copies_are_counted():
    """Inside a split, across splits, and in two classes."""
    train = Split(np.concatenate([TRAIN.images, TRAIN.images[:2]]), np.concatenate([TRAIN.labels, [0, 1]]))
    test = Split(
        np.concatenate([TEST.images, TEST.images[:1], TRAIN.images[5:8]]), np.append(TEST.labels, [0, 0, 0, 0])
    )
    data = replace(DATA, train=train, test=test)
    assert count_copies(data) == (2, 1, 3, 1)
    text = summarize(data, train, test)
    assert "WARNING: 3 of 10 test images are also training images; the accuracy will flatter the model\n" in text
    assert "WARNING: 1 picture is in several classes\n" in text
