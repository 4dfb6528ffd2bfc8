"""Behaviour of training.train."""

import contextlib

import keras
import numpy as np
import pytest

from tests.training.fitting import (
    CPU,
    NORMALIZE,
    RECIPE,
    SGD,
    START,
    TRAIN,
    VALIDATION,
    fit,
    in_precision,
)
from training.layers import BatchNormalization
from training.network import mini_model
from training.train import compile_network, train

pytestmark = pytest.mark.usefixtures("small_network")


def test_the_training_step_is_traced_once(whole):
    """Tracing takes seconds."""
    assert whole.traces == 1


def test_the_seed_determines_the_initial_weights(tmp_path, monkeypatch):
    """Another seed gives others."""
    drawn = []

    def draw(*_):
        drawn.append(float(keras.random.normal(())))
        raise KeyboardInterrupt

    monkeypatch.setattr("training.train.compile_network", draw)
    for seed in (0, 0, 1):
        with contextlib.suppress(KeyboardInterrupt):
            fit(tmp_path, recipe=RECIPE.model_copy(update={"seed": seed}))
    assert drawn[0] == drawn[1] != drawn[2]


def test_labels_are_smoothed_by_the_share_in_the_recipe():
    """In the loss of the compiled network."""
    recipe = RECIPE.model_copy(update={"label_smoothing": 0.2})
    network = compile_network(4, recipe, CPU, total_steps=1)
    answer = np.array([[0.7, 0.1, 0.1, 0.1]])
    loss = network.compute_loss(y=np.array([[1.0, 0, 0, 0]]), y_pred=answer)
    assert float(loss) == pytest.approx(-float(np.log(answer[0]) @ [0.85, 0.05, 0.05, 0.05]), rel=1e-5)


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.5), (4, 0.5), (48, 0.79), (1000, 0.99), (8928, 0.99)])
def test_batch_normalization_forgets_its_initial_averages(steps, momentum):
    """Even in a short run, whose momentum is smaller."""
    network = compile_network(3, RECIPE, CPU, total_steps=steps)
    layers = [layer for layer in network.layers if isinstance(layer, BatchNormalization)]
    assert [layer.momentum for layer in layers] == pytest.approx([momentum] * 5, abs=0.01)


def test_mixed_precision_keeps_weights_and_probabilities_in_float32(tmp_path):
    """In bfloat16 too."""
    recipe = SGD.model_copy(update={"epochs": 1})
    model = fit(tmp_path, recipe=recipe, devices=in_precision("mixed_bfloat16"))
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
    assert model.get_layer("stem").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_network_starts_from_the_given_weights(tmp_path, monkeypatch):
    """Instead of random ones."""
    weights = [weight + 1 for weight in mini_model(num_classes=3).get_weights()]
    started = []
    monkeypatch.setattr(keras.Model, "fit", lambda self, *_, **__: started.append(self.get_weights()))
    train(TRAIN, VALIDATION, SGD, NORMALIZE, CPU, tmp_path, START, weights=weights)
    for ours, theirs in zip(started[0], weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
