"""Behaviour of training.summary."""

import shutil
from dataclasses import replace

import numpy as np

from tests.training.images import CLASSES, draw_split, write_folder
from training.data import Data, Split, load_data
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
    assert count_copies(data)[:4] == (2, 1, 3, 1)
    text = summarize(data, train, test)
    assert "WARNING: 3 of 10 test images are also training images; the accuracy will flatter the model\n" in text
    assert "WARNING: 1 picture is in several classes\n" in text


def test_the_files_of_copies_are_named(tmp_path):
    """Those that need a decision: in two splits, or in two classes. The first ten of each."""
    write_folder(tmp_path / "train", draw_split(12, 0), "png")
    write_folder(tmp_path / "test", draw_split(1, 1), "png")
    first, second = (sorted((tmp_path / "train" / name).iterdir()) for name in CLASSES[:2])
    shutil.copy(first[0], tmp_path / "test" / CLASSES[0] / "a.png")
    shutil.copy(second[0], first[0].with_name("b.png"))
    data = load_data(str(tmp_path))
    text = summarize(data, data.train, data.test)
    assert f"model: train/{CLASSES[0]}/{first[0].name} = test/{CLASSES[0]}/a.png\n" in text
    assert f"in several classes: train/{CLASSES[0]}/b.png = train/{CLASSES[1]}/{second[0].name}\n" in text
    for path in first:
        shutil.copy(path, tmp_path / "test" / CLASSES[0])
    data = load_data(str(tmp_path))
    text = summarize(data, data.train, data.test)
    assert ", and 2 more\n" in text
