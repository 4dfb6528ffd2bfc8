"""Behaviour of training.typicality."""

import keras
import numpy as np
import pytest

from tests.training.fitting import shrink_network
from training import typicality
from training.network import mini_model
from training.typicality import extract_features, fit_typicality

WIDTH = 6
CENTERS = np.array([[9, 0, 0, 0, 0, 0], [0, 9, 0, 0, 0, 0], [0, 0, 9, 0, 0, 0]])
MIX = np.random.default_rng(9).normal(size=(WIDTH, WIDTH))


def draw_features(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw features of three classes, with much more variance in one direction, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (CENTERS[labels] + rng.normal(size=(count, WIDTH)) * np.geomspace(0.1, 3, WIDTH)) @ MIX, labels


FEATURES, LABELS = draw_features(3000, seed=0)
HELD_OUT, _ = draw_features(999, seed=1)
FITTED = fit_typicality(FEATURES, LABELS, HELD_OUT)


def measure(features: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(FITTED(features.astype(np.float32)))


def test_typicality_is_uniform_on_similar_images():
    """A share x of them has a typicality below x."""
    measured = measure(draw_features(3000, seed=2)[0])
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert (measured < share).mean() == pytest.approx(share, abs=0.03)


def test_features_far_from_every_class_are_least_typical():
    """Even at a usual distance, if it is in a direction in which classes hardly vary."""
    foreign = draw_features(300, seed=3)[0] + np.eye(WIDTH)[0] * 5 @ MIX
    assert np.median(measure(foreign)) == pytest.approx(1 / 1000)
    assert measure(FEATURES.mean(axis=0, keepdims=True)) < 0.1  # between the classes


def test_the_class_means_are_most_typical():
    """All held-out images are at least as far away."""
    np.testing.assert_allclose(measure(CENTERS @ MIX), 1, atol=0.01)


def test_the_distance_is_mahalanobiss():
    """To the nearest class mean, with the covariance within classes plus a share of each variance, or of their mean."""
    means = np.stack([FEATURES[label == LABELS].mean(axis=0) for label in range(3)])
    covariance = np.cov((FEATURES - means[LABELS]).T, bias=True)
    variances = covariance.diagonal()
    counted = np.maximum(variances, typicality.SHRINKAGE * variances.mean())
    inverse = np.linalg.inv(covariance + typicality.SHRINKAGE * np.diag(counted))
    differences = HELD_OUT[:, None] - means
    expected = np.einsum("ncd,de,nce->nc", differences, inverse, differences).min(axis=1)
    np.testing.assert_allclose(FITTED.measure_distances(HELD_OUT.astype(np.float32)), expected, rtol=1e-3)


def test_constant_features_are_harmless():
    """A channel may always be zero. More features than images are harmless too."""
    features = np.concatenate([FEATURES[:9], np.zeros((9, 30))], axis=1)
    held_out = np.concatenate([HELD_OUT[:9], np.zeros((9, 30))], axis=1)
    fitted = fit_typicality(features, LABELS[:9], held_out)
    assert np.isfinite(fitted.held_out).all()


def test_many_held_out_distances_are_summarized(monkeypatch):
    """The graph need not contain them all."""
    monkeypatch.setattr(typicality, "MAX_HELD_OUT", 99)
    fitted = fit_typicality(FEATURES, LABELS, HELD_OUT)
    assert len(fitted.held_out) == 99
    measured = keras.ops.convert_to_numpy(fitted(HELD_OUT.astype(np.float32)))
    np.testing.assert_allclose(measured, measure(HELD_OUT), atol=0.03)


def test_features_come_from_the_classifier_and_from_earlier_stages(monkeypatch):
    """The head's input, and the mean of each map at the end of the earlier stages."""
    shrink_network(monkeypatch)
    network = mini_model(num_classes=3)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    head, stage = (
        keras.Model(network.inputs, network.get_layer(name).output).predict(images, verbose=0)
        for name in ("features", "stage_1")
    )
    features = extract_features(network).predict(images, verbose=0)
    np.testing.assert_allclose(features, np.concatenate([head, stage.mean(axis=(1, 2))], axis=1), atol=1e-5)


def test_the_plain_network_has_features_too(monkeypatch):
    """Its stages end with a convolution."""
    shrink_network(monkeypatch)
    plain, residual = (extract_features(mini_model(num_classes=3, residual=kind)) for kind in (False, True))
    assert plain.output_shape == residual.output_shape
