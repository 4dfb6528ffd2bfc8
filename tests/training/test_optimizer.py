import keras
import numpy as np
import pytest

from training.config import Recipe
from training.optimizer import Muon, make_optimizer


def test_muon_orthogonalises_convolution_kernels():
    """The first step on a kernel has singular values near each other, whatever the gradient's were."""
    kernel = keras.Variable(np.zeros((3, 3, 8, 16), np.float32), name="kernel")
    gradient = np.random.default_rng(0).normal(size=(3, 3, 8, 16)) * np.geomspace(1, 30, 16)
    Muon(1.0, weight_decay=None).apply([keras.ops.cast(gradient, "float32")], [kernel])
    singular = np.linalg.svd(np.reshape(kernel, (-1, 16)), compute_uv=False)
    before = np.linalg.svd(gradient.reshape(-1, 16), compute_uv=False)
    assert singular.max() / singular.min() < 2.5
    assert before.max() / before.min() > 10


def test_muon_leaves_biases_and_head_to_adam():
    """What is no hidden matrix steps by sign-like Adam, at the learning rate."""
    bias = keras.Variable(np.zeros(3, np.float32), name="bias")
    Muon(0.1, weight_decay=None, adam_weight_decay=None).apply([keras.ops.array([5.0, -0.2, 1.0])], [bias])
    np.testing.assert_allclose(np.abs(bias), 0.1, rtol=1e-3)


def test_cosine_schedule_climbs_then_falls_to_zero():
    """Zero, peak after the warm-up, zero."""
    recipe = Recipe(optimizer="sgd", learning_rate=0.3, schedule="cosine", warmup=0.2)
    optimizer = make_optimizer(recipe, total_steps=100)
    rates = []
    for step in (0, 10, 20, 60, 100):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0, 0.15, 0.3, 0.15, 0], abs=1e-6)


def test_article_optimizer_is_plain_adam():
    """Adam(0.001), nothing else."""
    optimizer = make_optimizer(Recipe(), total_steps=100)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.001)
    assert optimizer.weight_decay is None
