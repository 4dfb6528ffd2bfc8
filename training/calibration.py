"""Measures and corrects the calibration of probabilities.

One temperature is fitted (C. Guo et al., "On Calibration of Modern Neural Networks", 2017). If the network was trained
with label smoothing, the smoothing is removed first. A temperature can't do that: it would have to raise high
probabilities and lower low ones. The share of smoothing is fitted too, because a network learns more or less of it than
it was trained with. Neither step changes the order of the classes.
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
"""Number of bins of equal width, as in Guo et al."""

FLOOR = 1e-4
"""Probability of a class whose smoothed probability equals its share of the smoothing; smaller ones get proportionally
less.

Fewer than ten thousand images can't measure smaller probabilities."""

SHARES = 41
"""Number of shares of smoothing to try; a few thousand images can't distinguish more."""


@dataclass(frozen=True)
class Calibration:
    """Turns a network's logits into calibrated probabilities, in NumPy or in a TensorFlow graph."""

    smoothing: float
    """The share of label smoothing in the network's probabilities."""
    temperature: float

    def __call__(self, logits: Any) -> Any:
        """Turn (N, classes) logits into (N, classes) probabilities."""
        return keras.ops.softmax(undo_smoothing(logits, self.smoothing) / self.temperature)


def fit_calibration(logits: Floats, labels: Labels, label_smoothing: float) -> Calibration:
    """Fit the calibration on images that the network was not trained on.

    Args:
        logits: (N, classes).
        labels: (N,) true classes.
        label_smoothing: the share that the network was trained with, from 0 to 1.
    """

    def fit(smoothing: float) -> tuple[float, Calibration]:
        plain = keras.ops.convert_to_numpy(undo_smoothing(logits, smoothing))
        temperature = fit_temperature(plain, labels)
        return _measure_loss(plain / temperature, labels), Calibration(smoothing, temperature)

    # Networks learn far less than twice the share they were trained with. A share of 1 or more would reverse the order
    # of the classes.
    shares = np.linspace(0, min(2 * label_smoothing, 0.99), SHARES) if label_smoothing else [0.0]
    _, calibration = min((fit(float(share)) for share in shares), key=lambda fitted: fitted[0])
    return calibration


def undo_smoothing(logits: Any, smoothing: float) -> Any:
    """Return the logits, (N, classes), without label smoothing.

    A smoothed label is (1 - s) · label + s / classes. A network trained on it returns (1 - s) · p + s / classes.
    """
    if not smoothing:
        return logits
    smoothed = keras.ops.softmax(logits)
    share = smoothing / smoothed.shape[-1]
    return keras.ops.log(keras.ops.maximum((smoothed - share) / (1 - smoothing), FLOOR * smoothed / share))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature that maximizes the likelihood of the labels when it divides the logits, (N, classes)."""

    def measure(log_temperature: float) -> float:
        return _measure_loss(logits / np.exp(log_temperature), labels)

    bounds = (-3, 3)  # temperatures from 0.05 to 20, far beyond those of real networks
    return float(np.exp(minimize_scalar(measure, bounds=bounds, method="bounded").x))


def bin_confidence(probabilities: Floats, labels: Labels) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return the mean confidence, accuracy and count of each bin, three (15,) arrays with 0 for empty bins.

    Args:
        probabilities: (N, classes).
        labels: (N,) true classes.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, correct))
    mean_confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return mean_confidence, accuracy, counts


def measure_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error: |accuracy - confidence|, averaged over the bins weighted by count.

    Args:
        probabilities: (N, classes).
        labels: (N,) true classes.

    Returns:
        A fraction from 0 to 1.
    """
    confidence, accuracy, counts = bin_confidence(probabilities, labels)
    return float(np.abs(accuracy - confidence) @ counts / counts.sum())


def _measure_loss(logits: Floats, labels: Labels) -> float:
    """Return the mean cross-entropy against labels with the probability (N + 1) / (N + 2) instead of 1.

    Otherwise a few images, all classified correctly, would make every probability 1 (J. Platt, "Probabilistic Outputs
    for Support Vector Machines", 1999, section 2.2).
    """
    count, classes = logits.shape
    scores = log_softmax(logits, axis=1)
    right = scores[np.arange(count), labels]
    others = (scores.sum(axis=1) - right) / (classes - 1)
    return -float(((count + 1) * right + others).mean() / (count + 2))
