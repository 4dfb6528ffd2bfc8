"""Measures a version on images from other sources: further test sets, and foreign images.

Foreign images show none of the model's classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from sklearn.metrics import roc_auc_score

from app.errors import RequestError
from app.images.decoders import Decoders
from app.images.formats import SUFFIXES
from app.runtime.load import Answers, Images
from training.data import MAX_BYTES, MAX_DECODE_SECONDS, MAX_PIXELS
from training.failures import DataError, one_line

KEPT = 0.95
"""Share of the test images above the threshold below which a foreign image counts as caught."""

NamedFolder = tuple[str, Path]
"""A folder of images: its name in tables, and its path."""


class TestSet(BaseModel, frozen=True):
    """Figures of a further test set; shares are fractions."""

    images: int
    accuracy: float
    class_mean: float
    """Mean of the classes' accuracies."""


class ForeignSet(BaseModel, frozen=True):
    """How well typicality, and the largest probability alone, separate foreign images from test images."""

    images: int
    typicality_auroc: float | None
    """Area under the ROC curve: 1 is perfect separation, 0.5 is chance."""
    typicality_caught: float | None
    """Share with a typicality lower than that of 95 % of the test images."""
    probability_auroc: float
    probability_caught: float


def measure_test_set(
    folder: Path, class_names: Sequence[str], image_size: tuple[int, int], predict: Callable[[Images], Answers]
) -> TestSet:
    """Measure accuracy on `folder`/<class>/*, which need not have all classes.

    Raises:
        DataError: a folder does not have the name of a class, or contains no images.
    """
    accuracies, counts = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if path.name not in class_names:
            raise DataError(f"{path} does not have the name of a class of the model: {', '.join(class_names)}")
        answers = predict(read_images(path, image_size))
        accuracies.append(float((answers.probabilities.argmax(axis=1) == class_names.index(path.name)).mean()))
        counts.append(len(answers.probabilities))
    if not counts:
        raise DataError(f"{folder} has no folders of classes")
    return TestSet(
        images=sum(counts),
        accuracy=float(np.average(accuracies, weights=counts)),
        class_mean=float(np.mean(accuracies)),
    )


def measure_foreign(
    folder: Path, image_size: tuple[int, int], known: Answers, predict: Callable[[Images], Answers]
) -> ForeignSet:
    """Measure how well the images in `folder` are separated from the test images, whose answers are `known`.

    Raises:
        DataError: it contains no images.
    """
    foreign = predict(read_images(folder, image_size))
    by_typicality: tuple[float, float] | tuple[None, None] = (None, None)
    if known.typicality is not None and foreign.typicality is not None:
        by_typicality = _tell_apart(known.typicality, foreign.typicality)
    by_probability = _tell_apart(known.probabilities.max(axis=1), foreign.probabilities.max(axis=1))
    return ForeignSet(
        images=len(foreign.probabilities),
        typicality_auroc=by_typicality[0],
        typicality_caught=by_typicality[1],
        probability_auroc=by_probability[0],
        probability_caught=by_probability[1],
    )


def _tell_apart(known: npt.NDArray[np.float32], foreign: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the area under the ROC curve, and the share of foreign scores below those of 95 % of the known ones."""
    scores = np.concatenate([known, foreign])
    auroc = roc_auc_score(np.repeat([1, 0], [len(known), len(foreign)]), scores)
    return float(auroc), float((foreign < np.quantile(known, 1 - KEPT)).mean())


def read_images(folder: Path, image_size: tuple[int, int]) -> Images:
    """Read all images in `folder` and below as the service decodes them, in the order of their names.

    Returns:
        (N, H, W, 3) uint8.

    Raises:
        DataError: there are none, or one can't be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise DataError(f"no images in {folder}")
    images = np.empty((len(paths), *image_size, 3), np.uint8)
    with Decoders(1, max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES, timeout_seconds=MAX_DECODE_SECONDS) as decoders:
        for index, path in enumerate(paths):
            try:
                images[index] = decoders.decode_blocking(path.read_bytes(), image_size)
            except (RequestError, OSError) as error:
                raise DataError(f"{str(path)!a} can't be read as an image: {one_line(error)}") from error
    return images
