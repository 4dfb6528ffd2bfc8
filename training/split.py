"""Splits labelled images at random, stratified by class, with all copies of an image on the same side.

It knows labels and pixels, not files.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from training.failures import DataError

Indices = npt.NDArray[np.int64]


def find_originals(*splits: npt.NDArray[np.uint8]) -> list[Indices]:
    """Return for each image of each split, (N, H, W, 3), the number of the first image with the same pixels.

    Images are numbered through all splits, so copies in different splits have the same number.
    """
    first: dict[bytes, int] = {}
    numbers = [
        [first.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), len(first)) for image in images]
        for images in splits
    ]
    return [np.array(split, np.int64) for split in numbers]


def hold_out(
    images: npt.NDArray[np.uint8],
    labels: Indices,
    share: float,
    seed: int,
    *,
    class_names: Sequence[str],
    parts: Sequence[str] = ("training", "--validation"),
) -> tuple[Indices, Indices]:
    """Choose which images to keep and which to hold out; every class has at least one on either side.

    Args:
        images: (N, H, W, 3).
        labels: (N,) class numbers.
        share: of each class, from 0 to 1.
        seed: the same seed chooses the same images.
        class_names: one for each class number.
        parts: what the images are for, with the flags that set the shares, for error messages. Each class needs an
            image for each part.

    Returns:
        The indices of the kept and of the held out images.

    Raises:
        DataError: a class has too few images.
    """
    (originals,) = find_originals(images)
    _, pictures = np.unique(originals, return_index=True)  # the first of each picture
    counts = np.bincount(labels[pictures], minlength=len(class_names))
    few = [
        f"class {name!r} has {count} different image{'' if count == 1 else 's'}"
        for name, count in zip(class_names, counts, strict=True)
        if count < len(parts)
    ]
    if few:
        raise DataError(
            f"{'; '.join(few)}; {len(parts)} are needed, one each for {', '.join(parts[:-1])} and {parts[-1]}: "
            "add images, or remove the class"
        )
    if (counts * share).min() >= 1:
        _, held = train_test_split(pictures, test_size=share, random_state=seed, stratify=labels[pictures])
    else:  # scikit-learn would leave out small classes
        random = np.random.default_rng(seed)
        held = np.concatenate(
            [
                random.permutation(pictures[labels[pictures] == label])[: max(1, round(share * count))]
                for label, count in enumerate(counts)
            ]
        )
    is_held = np.isin(originals, originals[held])
    for label, name in enumerate(class_names):
        if is_held[labels == label].all():
            raise DataError(
                f"class {name!r} has too few images to hold out {share:.0%}: none is left; lower {parts[-1]}"
            )
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def split_folds(
    images: npt.NDArray[np.uint8], labels: Indices, folds: int, seed: int
) -> Iterator[tuple[Indices, Indices]]:
    """Yield for each of `folds` rounds the indices of the images to fit to, and of those to predict.

    Each image is predicted once.
    """
    (originals,) = find_originals(images)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    yield from splitter.split(images[:, 0, 0, 0], labels, originals)


def count_smallest_class(images: npt.NDArray[np.uint8], labels: Indices) -> int:
    """Return how many different pictures the smallest class has."""
    (originals,) = find_originals(images)
    _, pictures = np.unique(originals, return_index=True)
    return int(np.bincount(labels[pictures]).min())
