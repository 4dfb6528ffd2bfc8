"""Calibration: how far probabilities can be taken at their word, and what mends them.

One temperature is fitted (C. Guo et al., "On Calibration of Modern Neural Networks", 2017). A network that was fitted
to smoothed labels has to be asked for the labels before: no temperature can bring them back, since it would have to
raise what is sure and to lower what is not. How much of its answers is smoothing is fitted too, since a network learns
more or less of it than it was taught.
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

    smoothing: float
    """The share of an answer that is the same for all classes, since the network learnt smoothed labels."""
    temperature: float

    def __call__(self, logits: Any) -> Any:
        """Turn (N, classes) logits into (N, classes) probabilities."""
        return keras.ops.softmax(undo_smoothing(logits, self.smoothing) / self.temperature)


def fit_calibration(logits: Floats, labels: Labels, label_smoothing: float) -> Calibration:
    """Fit the calibration of a network that was taught `label_smoothing`, on images that it was not fitted to."""

    def negative_log_likelihood(smoothing: float) -> float:
        plain = _undo_smoothing(logits, smoothing)
        return _negative_log_likelihood(plain / fit_temperature(plain, labels), labels)

    # Twice the share that was taught is far from all that was learnt of it; of none, none is.
    fitted = minimize_scalar(negative_log_likelihood, bounds=(0, 2 * label_smoothing), method="bounded")
    smoothing = float(fitted.x) if label_smoothing else 0.0
    return Calibration(smoothing, fit_temperature(_undo_smoothing(logits, smoothing), labels))


def undo_smoothing(logits: Any, smoothing: float) -> Any:
    """Return the logits (N, classes) for the labels as they were before a share of each was spread over all classes.

    A smoothed label is (1 - s) · label + s / classes. A network that learnt it gives (1 - s) · p + s / classes.
    """
    if not smoothing:
        return logits
    smoothed = keras.ops.softmax(logits)
    probabilities = (smoothed - smoothing / smoothed.shape[-1]) / (1 - smoothing)
    return keras.ops.log(keras.ops.maximum(probabilities, MIN_PROBABILITY))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature by which to divide logits (N, classes) so that their log-likelihood is highest."""

    def negative_log_likelihood(log_temperature: float) -> float:
        return _negative_log_likelihood(logits / np.exp(log_temperature), labels)

    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x))


def measure_temperature(logits: Floats, probabilities: Floats, smoothing: float) -> float:
    """Return the temperature by which calibrated `probabilities` came of `logits`, both (N, classes)."""
    plain = _undo_smoothing(logits, smoothing)
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


def _undo_smoothing(logits: Floats, smoothing: float) -> Floats:
    plain: Floats = keras.ops.convert_to_numpy(undo_smoothing(logits, smoothing))
    return plain


def _negative_log_likelihood(logits: Floats, labels: Labels) -> float:
    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
