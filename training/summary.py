"""Summarizes a data set before training: images per class, skipped files, copies, and the baseline's accuracy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.data import Data, Split
from training.report import percent
from training.split import Indices, find_originals
from training.table import draw_table

FEW = 10
"""The report warns about classes with fewer training images."""
LISTED = 10
"""Maximum number of pictures to name in a warning."""


class Copies(NamedTuple):
    """Numbers of images with exactly the pixels of another one, at the model's size."""

    in_train: int
    in_test: int
    """Copies of another test image."""
    across: int
    """Test images that are also training or validation images."""
    contradicting: int
    """Pictures that have several classes."""
    across_files: tuple[str, ...] = ()
    contradicting_files: tuple[str, ...] = ()
    """The files of the first of these pictures, joined by an equals sign. Empty if the data has no files."""


def count_copies(data: Data) -> Copies:
    """Count the images of a data set that are copies of others."""
    fitted = [data.train] if data.validation is None else [data.train, data.validation]
    numbers = find_originals(*(split.images for split in (*fitted, data.test)))
    train, test = np.concatenate(numbers[:-1]), numbers[-1]
    labels = np.concatenate([split.labels for split in (*fitted, data.test)])
    both = np.concatenate(numbers)
    pictures, classes = np.unique(np.unique(np.stack([both, labels], axis=1), axis=0)[:, 0], return_counts=True)
    contradicting = pictures[classes > 1]
    files = np.array([*data.train_files, *data.validation_files, *data.test_files], object)

    def name(chosen: Indices) -> tuple[str, ...]:
        if not data.train_files:
            return ()
        groups = [" = ".join(files[both == number]) for number in chosen[:LISTED]]
        more = [f"and {len(chosen) - LISTED} more"] if len(chosen) > LISTED else []
        # A file name need not be valid Unicode.
        return tuple(text.encode("utf-8", "backslashreplace").decode() for text in (*groups, *more))

    return Copies(
        in_train=len(train) - len(np.unique(train)),
        in_test=len(test) - len(np.unique(test)),
        across=int(np.isin(test, train).sum()),
        contradicting=len(contradicting),
        across_files=name(np.intersect1d(test, train)),
        contradicting_files=name(contradicting),
    )


def summarize(data: Data, train: Split, validation: Split) -> str:
    """Return the report on a data set as Markdown; `train` and `validation` are its splits."""
    names = data.class_names
    counts = [np.bincount(split.labels, minlength=len(names)) for split in (train, validation, data.test)]
    rows = [[name, *(f"{count[label]:,}" for count in counts)] for label, name in enumerate(names)]
    rows.append(["all", *(f"{count.sum():,}" for count in counts)])
    test = counts[-1]
    lines = [
        *data.notes,
        *describe_copies(count_copies(data), len(data.test.labels)),
        *(
            f"few images: class {name!r} has {count} to train on"
            for name, count in zip(names, counts[0], strict=True)
            if count < FEW
        ),
        f"baseline: always predicting {names[int(test.argmax())]!r}, {percent(test.max() / test.sum(), digits=1)}",
    ]
    table = draw_table(("class", "train", "validation", "test"), rows, numbers=True)
    return table + "".join(f"- {line}\n" for line in lines)


def describe_copies(copies: Copies, tested: int) -> list[str]:
    """Return a sentence for each kind of copies; `tested` is the number of test images."""
    lines = []
    if copies.across:
        overlap = describe_overlap(copies.across, tested)
        lines.append(f"WARNING: {overlap}; the accuracy will flatter the model{_list_files(copies.across_files)}")
    if copies.contradicting:
        one = "1 picture is" if copies.contradicting == 1 else f"{copies.contradicting} pictures are"
        lines.append(f"WARNING: {one} in several classes{_list_files(copies.contradicting_files)}")
    if copies.in_train:
        lines.append(f"{copies.in_train} training images are copies of others")
    if copies.in_test:
        lines.append(f"{copies.in_test} test images are copies of others")
    return lines


def _list_files(files: Sequence[str]) -> str:
    return f": {', '.join(files)}" if files else ""


def describe_overlap(across: int, tested: int) -> str:
    """Describe how many of the test images are also training images."""
    both = "is also a training image" if across == 1 else "are also training images"
    return f"{across} of {tested} test images {both}"
