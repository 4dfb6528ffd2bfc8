"""Behaviour of training.layers."""

import keras
import numpy as np
import pytest

from training.layers import BatchNormalization


@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_normalization_equals_keras(training):
    """In outputs and averages, except for the factor n / (n - 1) in the variance."""
    ours, keras_own = BatchNormalization(momentum=0.5), keras.layers.BatchNormalization(momentum=0.5)
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(ours(x, training=training), keras_own(x, training=training), atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, keras_own.moving_mean, rtol=1e-5)
    if training:
        unbiased = 0.5 + (keras_own.moving_variance - 0.5) * 100 / 99
        np.testing.assert_allclose(ours.moving_variance, unbiased, rtol=1e-5)
