"""Behaviour of training.split."""

import numpy as np
import pytest

from training.failures import DataError
from training.split import find_originals, hold_out, split_folds

NAMES = ("disc", "square")


def make_images(numbers):
    """Make an image for each number; equal numbers get equal images."""
    return np.broadcast_to(np.array(numbers, np.uint8)[:, None, None, None], (len(numbers), 4, 4, 3))


def split(numbers, labels, share=0.1, seed=0):
    return hold_out(make_images(numbers), np.array(labels), share, seed, class_names=NAMES)


def test_copies_have_the_number_of_the_first():
    """Across all splits."""
    train, test = find_originals(make_images([5, 6, 5]), make_images([7, 6]))
    assert (train.tolist(), test.tolist()) == ([0, 1, 0], [2, 1])


@pytest.mark.parametrize("sizes", [(2, 2), (2, 40), (5, 100)])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_every_class_is_on_both_sides(sizes, share):
    """If it has at least two images."""
    labels = np.repeat([0, 1], sizes)
    kept, held = split(range(len(labels)), labels, share)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert set(labels[kept]) == set(labels[held]) == {0, 1}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("repeats", [2, 20])
def test_copies_of_an_image_stay_together(seed, repeats):
    """Otherwise training would see held-out images."""
    numbers = np.tile(np.arange(6), repeats)
    labels = (numbers >= 3).astype(np.int64)
    kept, held = split(numbers, labels, 1 / 3, seed)
    assert not set(numbers[kept]) & set(numbers[held])
    for train, judged in split_folds(make_images(numbers), labels, 3, seed):
        assert not set(numbers[train]) & set(numbers[judged])


def test_each_image_is_in_one_fold():
    """And each class is in every fold in proportion."""
    labels = np.repeat([0, 1], [10, 20])
    judged = [judged for _, judged in split_folds(make_images(range(30)), labels, 5, seed=0)]
    assert sorted(np.concatenate(judged)) == list(range(30))
    assert [np.bincount(labels[fold]).tolist() for fold in judged] == [[2, 4]] * 5


def test_classes_with_one_image_are_refused_together():
    """By name. Copies do not count."""
    with pytest.raises(DataError, match=r"^class 'disc' has 1 different image; 2 are needed, .* and --valid"):
        split([0, 0, 1, 2], [0, 0, 1, 1])
    with pytest.raises(DataError, match=r"'disc' has 1 different image; class '.*' has 1 .*; 2 are needed"):
        split([0, 0, 1], [0, 0, 1])


def test_a_share_that_leaves_nothing_is_refused():
    """The message names the flag."""
    with pytest.raises(DataError, match="class 'disc' has too few images to hold out 80%: none is left; lower --valid"):
        split(range(12), [0] * 2 + [1] * 10, share=0.8)
