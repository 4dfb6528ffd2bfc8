"""Typicality: how much an image looks like the training images.

The distance of an image is the Mahalanobis distance of its features to the nearest class mean (K. Lee et al., "A Simple
Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", 2018). Its typicality is a
conformal p-value: the share of held-out images that are at least as far away. So it is uniform on images like the
training images, whatever the distribution of the distances.
"""

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from training.calibration import Floats, Labels

SHRINKAGE = 0.5
"""Share of each feature's variance that is added to it; a variance counts as at least this share of the mean variance.

So features in which the training images hardly vary count less. With a hundredth or four times of it, foreign
photographs are harder to tell (models/minimodel/4/card)."""
MAX_HELD_OUT = 5000
"""Maximum number of held-out distances in the graph; more are replaced by quantiles."""


@dataclass(frozen=True)
class Typicality:
    """Turns features into typicality, in NumPy or in a TensorFlow graph."""

    center: npt.NDArray[np.float32]
    """(features,): the mean of the training images' features."""
    whitening: npt.NDArray[np.float32]
    """(features, features): whitens centred features, so that they have unit covariance around their class means."""
    class_means: npt.NDArray[np.float32]
    """(classes, features), whitened."""
    held_out: npt.NDArray[np.float32]
    """(M,): distances of images that the network was not fitted to, in ascending order."""

    def measure_distances(self, features: Any) -> Any:
        """Return the squared Mahalanobis distance of (N, features) to the nearest class mean, (N,)."""
        whitened = ops.matmul(features - self.center, self.whitening)
        # Subtract before squaring: expanding the square into a matrix product would lose precision in bfloat16.
        differences = ops.expand_dims(whitened, 1) - self.class_means
        return ops.min(ops.sum(ops.square(differences), axis=2), axis=1)

    def __call__(self, features: Any) -> Any:
        """Turn (N, features) into typicality (N,), from 1 / (M + 1) to 1."""
        farther = ops.greater_equal(self.held_out, ops.expand_dims(self.measure_distances(features), 1))
        return (ops.sum(ops.cast(farther, "float32"), axis=1) + 1) / (len(self.held_out) + 1)


def extract_features(network: keras.Model) -> keras.Model:
    """Return a model (N, H, W, 3) → (N, features): the classifier's features, and the means of earlier stages' maps.

    The classifier's features separate the classes. Earlier features show colours and textures that no class has.
    """
    stages = [layer.output for layer in network.layers if layer.name.startswith("stage_")][:-1]
    features = network.get_layer("features").output
    # Not GlobalAveragePooling2D: OpenVINO pools faster than it reduces.
    means = [layers.Flatten()(layers.AveragePooling2D(stage.shape[1:3])(stage)) for stage in stages]
    return keras.Model(network.inputs, layers.Concatenate()([features, *means]))


def fit_typicality(features: Floats, labels: Labels, held_out: Floats) -> Typicality:
    """Fit the distance on training images, and the typicality on held-out ones.

    Args:
        features: (N, features) of training images.
        labels: (N,) their classes.
        held_out: (M, features) of images that the network was not fitted to.
    """
    features = features.astype(np.float64)  # a covariance needs differences of nearly equal numbers
    center = features.mean(axis=0)
    classes = np.unique(labels)
    means = np.stack([features[labels == label].mean(axis=0) for label in classes])
    residuals = features - means[np.searchsorted(classes, labels)]
    covariance = residuals.T @ residuals / len(residuals)
    variances = covariance.diagonal()
    shrunk = covariance + SHRINKAGE * np.diag(np.maximum(variances, SHRINKAGE * variances.mean()))
    whitening = np.linalg.inv(np.linalg.cholesky(shrunk)).T
    fitted = Typicality(
        center.astype(np.float32),
        whitening.astype(np.float32),
        ((means - center) @ whitening).astype(np.float32),
        np.zeros(0, np.float32),
    )
    return replace(fitted, held_out=summarize_distances(fitted.measure_distances(held_out)))


def summarize_distances(distances: Any) -> npt.NDArray[np.float32]:
    """Sort held-out distances (M,), and replace more than `MAX_HELD_OUT` by evenly spaced quantiles."""
    ordered = np.sort(ops.convert_to_numpy(distances))
    if len(ordered) > MAX_HELD_OUT:
        ordered = np.quantile(ordered, np.arange(1, MAX_HELD_OUT + 1) / (MAX_HELD_OUT + 1))
    return ordered.astype(np.float32)
