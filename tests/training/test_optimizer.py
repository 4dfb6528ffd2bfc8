"""Behaviour of training.optimizer."""

import keras
import numpy as np
import pytest

from training.config import Recipe
from training.optimizer import Muon, make_optimizer


def name_variables(shapes):
    """Make a variable of ones for each name and shape."""
    return [keras.Variable(np.ones(shape, np.float32), name=name) for name, shape in shapes.items()]


def as_tensors(arrays):
    return [keras.ops.cast(array, "float32") for array in arrays]


def test_muon_orthogonalizes_convolution_kernels():
    """The singular values of the first step are similar, whatever the gradient's were."""
    kernel = keras.Variable(np.zeros((3, 3, 8, 16), np.float32), name="kernel")
    gradient = np.random.default_rng(0).normal(size=(3, 3, 8, 16)) * np.geomspace(1, 30, 16)
    Muon(1.0, weight_decay=None).apply([keras.ops.cast(gradient, "float32")], [kernel])
    singular = np.linalg.svd(np.reshape(kernel, (-1, 16)), compute_uv=False)
    before = np.linalg.svd(gradient.reshape(-1, 16), compute_uv=False)
    assert singular.max() / singular.min() < 2.5
    assert before.max() / before.min() > 10


@pytest.mark.parametrize("shape", [(72, 16), (16, 72), (16, 16)])
def test_muon_orthogonalizes_like_keras(shape):
    """With fewer multiplications."""
    matrix = keras.ops.cast(np.random.default_rng(0).normal(size=shape), "float32")
    ours = Muon().zeropower_via_newtonschulz5(matrix, 5)
    np.testing.assert_allclose(ours, keras.optimizers.Muon().zeropower_via_newtonschulz5(matrix, 5), atol=1e-5)


def test_biases_and_the_head_use_adam():
    """Their first step is the learning rate times the gradient's sign."""
    variables = name_variables({"bias": (3,), "head": (4, 3)})
    gradients = [np.random.default_rng(0).normal(size=variable.shape) for variable in variables]
    Muon(0.1, weight_decay=None, adam_weight_decay=None).apply(as_tensors(gradients), variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        np.testing.assert_allclose(variable, 1 - 0.1 * np.sign(gradient), rtol=1e-3)


@pytest.mark.parametrize(("steps", "momentum"), [(30_000, 0.999), (100, 0.9), (4, 0.5)])
@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_weights_are_averaged_over_a_part_of_the_run(name, steps, momentum):
    """In a short run over fewer steps than in the recipe, so that the average forgets the initial weights."""
    optimizer = make_optimizer(Recipe(optimizer=name, ema=0.999), total_steps=steps)
    assert optimizer.use_ema
    assert optimizer.ema_momentum == pytest.approx(momentum)
    assert not make_optimizer(Recipe(optimizer=name), total_steps=steps).use_ema


@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_weights_decay_and_biases_do_not(name):
    """Without a gradient, weights shrink by decay × learning rate."""
    optimizer = make_optimizer(Recipe(optimizer=name, learning_rate=0.5, weight_decay=0.1), total_steps=10)
    shapes = {"kernel": (3, 3, 2, 4), "head": (4, 3), "bias": (3,), "gamma": (4,), "beta": (4,)}
    variables = name_variables(shapes)
    optimizer.apply(as_tensors([np.zeros(shape) for shape in shapes.values()]), variables)
    left = {variable.name: float(np.mean(variable)) for variable in variables}
    assert left == pytest.approx({"kernel": 0.95, "head": 0.95, "bias": 1, "gamma": 1, "beta": 1})


def test_the_cosine_schedule_rises_then_falls_to_zero():
    """The peak is at the end of the warm-up."""
    recipe = Recipe(optimizer="sgd", learning_rate=0.3, schedule="cosine", warmup=0.2)
    optimizer = make_optimizer(recipe, total_steps=100)
    rates = []
    for step in (0, 10, 20, 60, 100):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0, 0.15, 0.3, 0.15, 0], abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_long_warm_up_leaves_one_step(steps):
    """The rate peaks before the last step."""
    recipe = Recipe(schedule="cosine", warmup=0.99, learning_rate=0.3)
    optimizer = make_optimizer(recipe, total_steps=steps)
    optimizer.iterations.assign(steps - 1)
    assert float(optimizer.learning_rate) == pytest.approx(0.3)


def test_the_article_uses_plain_adam():
    """Adam(0.001), without decay or a schedule."""
    optimizer = make_optimizer(Recipe(), total_steps=100)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.001)
    assert optimizer.weight_decay is None
