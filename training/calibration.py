"""Calibration: how far probabilities can be taken at their word, and the temperature that mends them.

C. Guo et al., "On Calibration of Modern Neural Networks" (2017).
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

BINS = 15
"""Of equal width, as in Guo et al."""


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature by which to divide logits (N, classes) so that their log-likelihood is highest."""

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x))


def change_temperature(probabilities: Floats, factor: float) -> Floats:
    """Return the probabilities (N, classes) that `factor` times the temperature would have given."""
    tiny = np.finfo(np.float32).tiny
    return np.exp(log_softmax(np.log(np.maximum(probabilities, tiny)) / factor, axis=1))


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
