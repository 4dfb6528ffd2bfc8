"""Cross-validation: measures all images of a small data set, each with a network that was not fitted to it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from training.calibration import Floats, Labels
from training.config import Recipe
from training.data import Split
from training.devices import Devices
from training.pipeline import Normalization, make_dataset, make_train_dataset, steps_per_epoch
from training.report import percent
from training.split import split_folds
from training.train import compile_network

FOLDS_FILE = "folds.npz"
"""The saved answers. Exporting the run again reads them instead of repeating the cross-validation."""


class Folds(NamedTuple):
    """The answers of cross-validation."""

    logits: Floats
    """(N, classes)."""
    labels: Labels
    """(N,)."""
    folds: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float((self.logits.argmax(axis=1) == self.labels).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson)."""
        right = int((self.logits.argmax(axis=1) == self.labels).sum())
        interval = binomtest(right, len(self.labels)).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)


def cross_validate(
    split: Split,
    folds: int,
    recipe: Recipe,
    normalize: Normalization,
    devices: Devices,
    initialize: Callable[[Split], Sequence[npt.NDArray[np.float32]]] | None = None,
    build: Callable[[int, Recipe, Devices, int], keras.Model] = compile_network,
) -> Folds:
    """For each fold, fit a network to the other folds for the recipe's epochs, and predict the fold.

    Args:
        split: the images, at least `folds` of each class.
        folds: number of folds.
        recipe: of the run to estimate; the weights of its last epoch are used.
        normalize: as in that run.
        devices: as in that run.
        initialize: returns the initial weights for a training set; by default they are random.
        build: returns the compiled network.
    """
    logits = np.empty((len(split.labels), int(split.labels.max()) + 1), np.float32)
    rounds = list(split_folds(split.images, split.labels, folds, recipe.seed))
    steps = max(steps_per_epoch(len(kept), recipe) for kept, _ in rounds)
    recipe = recipe.model_copy(update={"low_resolution": 0.0})
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(devices.precision)
    with devices.strategy.scope():
        model = build(logits.shape[1], recipe, devices, steps * recipe.epochs)
    head = keras.Model(model.inputs, model.get_layer("head").output)
    variables = [*model.variables, *model.optimizer.variables]
    fresh = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
    for kept, judged in rounds:
        for variable, value in zip(variables, fresh, strict=True):
            variable.assign(value)
        part = Split(split.images[kept], split.labels[kept])
        if initialize:
            model.set_weights(initialize(part))
        stream = make_train_dataset(part, recipe, normalize, num_classes=logits.shape[1]).repeat()
        # One "epoch" of all steps: the schedule counts steps, and nothing is validated in between.
        model.fit(stream, epochs=1, steps_per_epoch=steps * recipe.epochs, shuffle=False, verbose=0)
        model.optimizer.finalize_variable_values(model.trainable_weights)
        rest = Split(split.images[judged], split.labels[judged])
        images = make_dataset(rest, normalize, num_classes=logits.shape[1]).map(lambda images, _: images)
        logits[judged] = head.predict(images, verbose=0)
    return Folds(logits, split.labels, folds)


def save_folds(path: Path, folds: Folds) -> None:
    """Write the answers."""
    np.savez(path, logits=folds.logits, labels=folds.labels, folds=folds.folds)


def read_folds(path: Path) -> Folds:
    """Read the answers that `save_folds` wrote."""
    with np.load(path) as saved:
        return Folds(saved["logits"], saved["labels"], int(saved["folds"]))


def describe_folds(folds: Folds) -> str:
    """Describe the accuracy in a sentence."""
    low, high = folds.interval
    return (
        f"Cross-validation in {folds.folds} folds on the {len(folds.labels)} training and validation images: accuracy "
        f"{percent(folds.accuracy, digits=1)} (95 % interval {percent(low, digits=1)} to {percent(high, digits=1)})."
    )
