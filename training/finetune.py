"""Starts a network from the weights of an exported version, with a new head for other classes.

It reads the weights from the version's SavedModel and measures the normalization of its graph. A new head starts as a
logistic regression on the features of the training images. With the same classes, the network keeps the version's head.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from app.contract import GOLDEN_FILE, ModelMetadata
from app.runtime.openvino import make_core  # before openvino itself: it turns off telemetry
from training.calibration import Calibration
from training.config import Recipe
from training.data import Split
from training.export import predict, predict_logits
from training.failures import VersionError
from training.network import build_in_float32
from training.numbering import read_metadata
from training.pipeline import Normalization

TOLERANCE = 0.01
"""Maximum difference of the rebuilt network's golden probabilities from the version's, far above rounding."""
HEAD_PENALTY = 0.01
"""scikit-learn's C for the new head: a strong penalty, so that few images do not make it certain."""

Weights = list[npt.NDArray[np.float32]]


class Start(NamedTuple):
    """The weights and the normalization that a network starts from."""

    name: str
    """Name and version, such as "minimodel 3"."""
    weights: Weights
    """Of the whole network, in Keras's order; the last two are the head's."""
    normalize: Normalization
    residual: bool
    class_names: tuple[str, ...]


def load_start(folder: Path) -> Start:
    """Load the weights and the normalization of the version in `folder`.

    Raises:
        VersionError: it can't be read, or its weights are not those of a MiniModel.
    """
    metadata = read_metadata(folder)
    try:
        weights = _read_weights(folder)
        start = Start(
            f"{metadata.name} {metadata.version}",
            weights,
            _measure_normalization(folder, metadata),
            bool(metadata.recipe.get("residual", True)),
            tuple(metadata.class_names),
        )
        network = build_in_float32(metadata.input.shape[0], len(metadata.class_names), residual=start.residual)
        network.set_weights(weights)
    except (tf.errors.OpError, ValueError, KeyError) as error:
        raise VersionError(f"{folder} has no weights of a MiniModel: {' '.join(str(error).split())}") from error
    _require_golden(folder, metadata, network, start.normalize)
    return start


def make_initial_weights(start: Start, split: Split, recipe: Recipe, class_names: Sequence[str]) -> Weights:
    """Return the weights of a network for these classes and the image size of `split`, started from `start`."""
    if tuple(class_names) == start.class_names:
        return start.weights
    classes = int(split.labels.max()) + 1
    network = build_in_float32(split.images.shape[1], classes, residual=start.residual)
    head = network.get_layer("head")
    network.set_weights([*start.weights[:-2], *head.get_weights()])
    features = keras.Model(network.inputs, head.input)
    mirrored = [split.images, split.images[:, :, ::-1]] if recipe.flip else [split.images]
    seen = np.concatenate([predict(features, start.normalize, images) for images in mirrored])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # training continues from there
        regression = LogisticRegression(C=HEAD_PENALTY, max_iter=500)
        regression.fit(seen.astype(np.float64), np.tile(split.labels, len(mirrored)))
    kernel, bias = regression.coef_.T, regression.intercept_
    if classes == 2:  # noqa: PLR2004 - scikit-learn has one column for two classes
        kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
    return [*network.get_weights()[:-2], kernel.astype(np.float32), bias.astype(np.float32)]


def fit_normalization(normalize: Normalization, size: int) -> Normalization:
    """Return `normalize` for images of `size` pixels. Deviations by position are averaged if the size differs."""
    deviation = normalize.deviation
    if deviation.ndim > 1 and deviation.shape[0] != size:
        deviation = deviation.mean(axis=(0, 1))
    return Normalization(normalize.mean, deviation)


def _read_weights(folder: Path) -> Weights:
    """Read the list `weights` of the module that `training.export` saved."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    count = sum(name.startswith("weights/") for name in reader.get_variable_to_shape_map())
    return [reader.get_tensor(f"weights/{index}/.ATTRIBUTES/VARIABLE_VALUE") for index in range(count)]


def _measure_normalization(folder: Path, metadata: ModelMetadata) -> Normalization:
    """Measure the graph's normalization of pixels. It is linear, so a black and a white image are enough."""
    import openvino  # noqa: PLC0415 - after app.runtime.openvino

    core = make_core()
    graph = core.read_model(folder)
    stem = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution")
    pixels = openvino.Model([stem.input(0).get_source_output()], graph.get_parameters())
    compiled = core.compile_model(pixels, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.stack([np.full(metadata.input.shape, level, np.uint8) for level in (0, 255)])
    black, white = compiled(images)[0].transpose(0, 2, 3, 1).astype(np.float64)
    deviation = 1 / (white - black)
    mean = -black * deviation
    if (np.ptp(deviation, axis=(0, 1)) < 1e-5 * deviation.mean()).all():  # the same at every position
        deviation = deviation.mean(axis=(0, 1))
    return Normalization(mean.mean(axis=(0, 1)).astype(np.float32), deviation.astype(np.float32))


def _require_golden(folder: Path, metadata: ModelMetadata, network: keras.Model, normalize: Normalization) -> None:
    """Raise unless the rebuilt network gives the version's golden probabilities: otherwise the weights were misread."""
    with np.load(folder / GOLDEN_FILE) as golden:
        images, expected = golden["images"], golden["probabilities"]
    logits = predict_logits(network, normalize, images)
    answers = keras.ops.convert_to_numpy(Calibration(metadata.smoothing, metadata.temperature)(logits))
    if not float(np.abs(answers - expected).max()) <= TOLERANCE:
        raise VersionError(
            f"can't start from {folder}: MiniModel with its weights gives other probabilities than the version"
        )
