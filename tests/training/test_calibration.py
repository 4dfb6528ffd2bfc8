import numpy as np
import pytest
from scipy.special import softmax

from training.calibration import bin_confidence, change_temperature, fit_temperature, measure_calibration_error

RNG = np.random.default_rng(0)
HONEST = RNG.normal(0, 2, (20_000, 4))
LABELS = np.array([RNG.choice(4, p=row) for row in softmax(HONEST, axis=1)])


def test_temperature_that_made_logits_overconfident_is_found():
    """Labels drawn from softmax(z) and logits 2.5 z call for a temperature of 2.5."""
    assert fit_temperature(2.5 * HONEST, LABELS) == pytest.approx(2.5, rel=0.03)


def test_honest_probabilities_have_no_calibration_error():
    """Overconfident ones have."""
    assert measure_calibration_error(softmax(HONEST, axis=1), LABELS) < 0.02
    assert measure_calibration_error(softmax(2.5 * HONEST, axis=1), LABELS) > 0.1


def test_calibration_error_of_a_worked_example():
    """Two answers at 0.95, one of them right: |0.5 - 0.95|."""
    assert measure_calibration_error(np.array([[0.95, 0.05], [0.95, 0.05]]), np.array([0, 1])) == pytest.approx(0.45)


def test_bins_hold_every_answer():
    """Confidence of exactly 1 falls into the last bin."""
    _, accuracy, counts = bin_confidence(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]))
    assert counts.sum() == 2
    assert (accuracy[-1], counts[-1]) == (1, 1)


def test_temperature_can_be_taken_back():
    """Dividing the temperature out of probabilities gives those of the raw logits."""
    np.testing.assert_allclose(change_temperature(softmax(HONEST / 2, axis=1), 0.5), softmax(HONEST, axis=1), atol=1e-9)
