"""Behaviour of training.calibration."""

import keras
import numpy as np
import pytest
from scipy.special import softmax

from training.calibration import (
    Calibration,
    bin_confidence,
    fit_calibration,
    fit_temperature,
    measure_calibration_error,
)

RNG = np.random.default_rng(0)
HONEST = RNG.normal(0, 2, (20_000, 4))
LABELS = np.array([RNG.choice(4, p=row) for row in softmax(HONEST, axis=1)])


def test_the_temperature_of_overconfident_logits_is_found():
    """Labels drawn from softmax(z) and logits 2.5 z give a temperature of 2.5."""
    assert fit_temperature(2.5 * HONEST, LABELS) == pytest.approx(2.5, rel=0.03)


def test_label_smoothing_is_removed():
    """A network that learned smoothed labels perfectly gets the unsmoothed probabilities."""
    honest = softmax(HONEST, axis=1)
    smoothed = np.log(0.8 * honest + 0.2 / 4)
    calibrate = fit_calibration(smoothed, LABELS, 0.2)
    assert calibrate.smoothing == pytest.approx(0.2, abs=0.01)
    assert calibrate.temperature == pytest.approx(1, rel=0.05)
    np.testing.assert_allclose(Calibration(0.2, 1)(smoothed), honest, atol=5e-4)
    plain = softmax(smoothed / fit_temperature(smoothed, LABELS), axis=1)
    corrected = keras.ops.convert_to_numpy(calibrate(smoothed))
    assert measure_calibration_error(corrected, LABELS) < 0.5 * measure_calibration_error(plain, LABELS)


def test_the_share_of_smoothing_is_fitted():
    """If a network trained with 0.1 learned 0.14, 0.14 is removed."""
    learnt = np.log(0.86 * softmax(HONEST, axis=1) + 0.14 / 4)
    assert fit_calibration(learnt, LABELS, 0.1).smoothing == pytest.approx(0.14, abs=0.01)
    assert fit_calibration(HONEST, LABELS, 0.0).smoothing == 0


def test_the_share_of_smoothing_stays_below_1():
    """Even if a larger share would fit better, because it would reverse the order of the classes."""
    calibrate = fit_calibration(-HONEST, LABELS, 0.7)
    assert (np.asarray(calibrate(HONEST)).argsort(axis=1) == HONEST.argsort(axis=1)).all()


def test_classes_below_the_smoothing_get_a_small_probability():
    """Not smaller than the validation images can measure."""
    calibrated = np.asarray(Calibration(0.1, 1)(np.log([[0.98, 0.019, 0.001]])))
    assert calibrated.argmax() == 0
    assert 1e-7 < calibrated.min() < 1.1e-4


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.2])
def test_calibration_keeps_the_order_of_the_classes(smoothing):
    """Also of those below the smoothing, because clients can request all classes."""
    calibrated = np.asarray(Calibration(smoothing, 1.3)(HONEST.astype(np.float32)))
    assert (calibrated.argsort(axis=1) == HONEST.argsort(axis=1)).all()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_few_right_answers_do_not_give_certainty(label_smoothing):
    """If all of thirty images are right, the calibrated confidence is 31/32."""
    logits = 3 * np.eye(10)[np.arange(30) % 10]
    labels = np.arange(30) % 10
    confidence = np.asarray(fit_calibration(logits, labels, label_smoothing)(logits)).max(axis=1)
    assert confidence == pytest.approx(31 / 32, abs=0.01)


def test_calibrated_probabilities_have_no_calibration_error():
    """Overconfident ones have."""
    assert measure_calibration_error(softmax(HONEST, axis=1), LABELS) < 0.02
    assert measure_calibration_error(softmax(2.5 * HONEST, axis=1), LABELS) > 0.1


def test_calibration_error_of_a_worked_example():
    """Two answers at 0.95, one of them right: |0.5 - 0.95|."""
    assert measure_calibration_error(np.array([[0.95, 0.05], [0.95, 0.05]]), np.array([0, 1])) == pytest.approx(0.45)


def test_a_confidence_of_1_is_in_the_last_bin():
    """So all answers are counted."""
    _, accuracy, counts = bin_confidence(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]))
    assert counts.sum() == 2
    assert (accuracy[-1], counts[-1]) == (1, 1)
