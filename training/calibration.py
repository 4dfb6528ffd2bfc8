"""Calibration: how far probabilities can be taken at their word, and what mends them.

One temperature is fitted (C. Guo et al., "On Calibration of Modern Neural Networks", 2017). A network that was fitted
to smoothed labels has to be asked for the labels before: no temperature can bring them back, since it would have to
raise what is sure and to lower what is not.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

BINS = 15
"""Of equal width, as in Guo et al."""


MIN_PROBABILITY = 1e-4
"""What is left of a class that the network gives less than its share of the smoothing: the images that could tell how
rare it is are fewer than ten thousand."""


@dataclass(frozen=True)
class Calibration:
    """From a network's logits to probabilities, in NumPy as in a TensorFlow graph."""

    label_smoothing: float
    temperature: float

    def __call__(self, logits: Any) -> Any:
        """Turn (N, classes) logits into (N, classes) probabilities."""
        return keras.ops.softmax(undo_label_smoothing(logits, self.label_smoothing) / self.temperature)


def fit_calibration(logits: Floats, labels: Labels, label_smoothing: float) -> Calibration:
    """Fit the calibration of a network that was fitted with `label_smoothing`, on images that it was not fitted to."""
    plain = keras.ops.convert_to_numpy(undo_label_smoothing(logits, label_smoothing))
    return Calibration(label_smoothing, fit_temperature(plain, labels))


def undo_label_smoothing(logits: Any, label_smoothing: float) -> Any:
    """Return the logits (N, classes) for the labels as they were before a share of each was spread over all classes.

    A smoothed label is (1 - s) · label + s / classes. A network that learnt it gives (1 - s) · p + s / classes.
    """
    if not label_smoothing:
        return logits
    smoothed = keras.ops.softmax(logits)
    probabilities = (smoothed - label_smoothing / smoothed.shape[-1]) / (1 - label_smoothing)
    return keras.ops.log(keras.ops.maximum(probabilities, MIN_PROBABILITY))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature by which to divide logits (N, classes) so that their log-likelihood is highest."""

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x))


def measure_temperature(logits: Floats, probabilities: Floats, label_smoothing: float) -> float:
    """Return the temperature by which calibrated `probabilities` came of `logits`, both (N, classes)."""
    plain = keras.ops.convert_to_numpy(undo_label_smoothing(logits, label_smoothing))
    scaled = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    # Softmax forgets what is common to a row. The rest is the same up to the factor, which is that of least squares.
    plain, scaled = (values - values.mean(axis=1, keepdims=True) for values in (plain, scaled))
    return float((plain * plain).sum() / (plain * scaled).sum())


def bin_confidence(probabilities: Floats, labels: Labels) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return mean confidence, accuracy and count of each bin of confidence, three (15,) arrays; empty bins hold 0."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, correct))
    mean_confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return mean_confidence, accuracy, counts


def measure_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error: |accuracy - confidence|, averaged over the bins by their counts."""
    confidence, accuracy, counts = bin_confidence(probabilities, labels)
    return float(np.abs(accuracy - confidence) @ counts / counts.sum())
