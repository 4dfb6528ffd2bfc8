"""Calibration: how far probabilities can be taken at their word, and what mends them.

One temperature is fitted (C. Guo et al., "On Calibration of Modern Neural Networks", 2017). A network that was fitted
to smoothed labels has to be asked for the labels before: no temperature can bring them back, since it would have to
raise what is sure and to lower what is not. How much of its answers is smoothing is fitted too, since a network learns
more or less of it than it was taught. Neither changes the order of the classes.
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


FLOOR = 1e-4
"""What is left of a class that the network gives just its share of the smoothing, and in proportion of one that gets
less: the images that could tell how rare it is are fewer than ten thousand."""

SHARES = 41
"""How many shares of smoothing are tried: more than a few thousand images tell apart."""


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
    """Fit the calibration of a network on images that it was not fitted to.

    Args:
        logits: (N, classes), the network's answers.
        labels: (N,) true classes.
        label_smoothing: the share that the network was taught, from 0 to 1.
    """

    def fit(smoothing: float) -> tuple[float, Calibration]:
        plain = keras.ops.convert_to_numpy(undo_smoothing(logits, smoothing))
        temperature = fit_temperature(plain, labels)
        return _measure_loss(plain / temperature, labels), Calibration(smoothing, temperature)

    # Twice the share that was taught is far from all that was learnt of it; of none, none is. More than all of an
    # answer would turn the order of the classes round.
    shares = np.linspace(0, min(2 * label_smoothing, 0.99), SHARES) if label_smoothing else [0.0]
    _, calibration = min((fit(float(share)) for share in shares), key=lambda fitted: fitted[0])
    return calibration


def undo_smoothing(logits: Any, smoothing: float) -> Any:
    """Return the logits (N, classes) for the labels as they were before a share of each was spread over all classes.

    A smoothed label is (1 - s) · label + s / classes. A network that learnt it gives (1 - s) · p + s / classes.
    """
    if not smoothing:
        return logits
    smoothed = keras.ops.softmax(logits)
    share = smoothing / smoothed.shape[-1]
    return keras.ops.log(keras.ops.maximum((smoothed - share) / (1 - smoothing), FLOOR * smoothed / share))


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature by which to divide logits (N, classes) so that the labels are most likely."""

    def measure(log_temperature: float) -> float:
        return _measure_loss(logits / np.exp(log_temperature), labels)

    return float(np.exp(minimize_scalar(measure, bounds=(-3, 3), method="bounded").x))


def bin_confidence(probabilities: Floats, labels: Labels) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return mean confidence, accuracy and count of each bin of confidence, three (15,) arrays; empty bins hold 0.

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
    """Return the expected calibration error: |accuracy - confidence|, averaged over the bins by their counts.

    Args:
        probabilities: (N, classes).
        labels: (N,) true classes.

    Returns:
        A share, from 0 to 1.
    """
    confidence, accuracy, counts = bin_confidence(probabilities, labels)
    return float(np.abs(accuracy - confidence) @ counts / counts.sum())


def _measure_loss(logits: Floats, labels: Labels) -> float:
    """Return the mean cross-entropy against labels that are sure as far as N images can tell: to (N + 1) / (N + 2).

    Else a few images, all of them right, would make every answer certain (J. Platt, "Probabilistic Outputs for Support
    Vector Machines", 1999, section 2.2).
    """
    count, classes = logits.shape
    scores = log_softmax(logits, axis=1)
    right = scores[np.arange(count), labels]
    others = (scores.sum(axis=1) - right) / (classes - 1)
    return -float(((count + 1) * right + others).mean() / (count + 2))
