"""Compares a new version with the newest one: their classes and their accuracy."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import RefusedVersionError
from app.runtime.load import Probabilities, load_runtime
from training.config import Options
from training.data import Data, load_data
from training.evaluation import BATCH_SIZE
from training.failures import ExportError, VersionError
from training.numbering import find_newest, read_metadata
from training.report import percent


class Comparison(NamedTuple):
    """Accuracy of the new and of the newest version on the same test images."""

    newest: Path
    new_accuracy: float
    newest_accuracy: float
    images: int

    @property
    def is_better(self) -> bool:
        """Whether the new version classifies more images correctly."""
        return self.new_accuracy > self.newest_accuracy

    def __str__(self) -> str:
        new, old = percent(self.new_accuracy), percent(self.newest_accuracy)
        return (
            f"On the same {self.images:,} test images, the new version classifies {new} correctly, {self.newest} {old}."
        )


def require_same_classes(models: Path, class_names: tuple[str, ...]) -> None:
    """Raise if the newest version in `models` has other classes, because a service would switch to the new ones.

    Raises:
        ExportError: with the flag that names another model.
    """
    newest = find_newest(models)
    if newest is None:
        return
    try:
        known = read_metadata(newest).class_names
    except VersionError:  # a damaged version does not serve
        return
    if known != class_names:
        raise ExportError(
            f"{newest} has the classes {', '.join(known)}, but the data has {', '.join(class_names)}; a running "
            "service would switch to it, so set another --name"
        )


def compare_with_newest(newest: Path, options: Options, data: Data, probabilities: Probabilities) -> Comparison | None:
    """Measure the newest version on the test images too, at its own size.

    Args:
        newest: its folder.
        options: the options that the data was loaded with.
        data: the data set of the new version.
        probabilities: (N, classes), the new version's answers for the test images.

    Returns:
        None if the newest version can't be loaded.
    """
    try:
        metadata = read_metadata(newest)
        runtime = load_runtime(newest, name="openvino", precision="f32", threads=0)
    except (VersionError, RefusedVersionError):
        return None
    size = metadata.input.shape[0]
    if size != data.test.images.shape[1]:
        seed, skip = options.recipe.seed, options.skip_damaged
        data = load_data(options.data, size=size, seed=seed, skip_damaged=skip)
    images, labels = data.test
    starts = range(0, len(images), BATCH_SIZE)
    answers = np.concatenate(
        [runtime.predict(images[start : start + BATCH_SIZE]).probabilities.argmax(axis=1) for start in starts]
    )
    return Comparison(newest, _measure(probabilities.argmax(axis=1), labels), _measure(answers, labels), len(labels))


def _measure(answers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    return float((answers == labels).mean())
