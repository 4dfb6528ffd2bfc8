"""Behaviour of training.folds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.fitting import shrink_network
from tests.training.images import draw_split
from training.config import Recipe
from training.devices import Devices
from training.folds import Folds, cross_validate, describe_folds, read_folds, save_folds
from training.network import mini_model
from training.pipeline import measure_normalization

CPU = Devices(tf.distribute.get_strategy(), "float32", jit_compile=False, description="CPU")


def test_each_image_is_predicted_by_a_network_that_has_not_seen_it(monkeypatch):
    """With random labels, such a network can only guess."""
    shrink_network(monkeypatch)
    split = draw_split(12, seed=0)
    seen = []
    monkeypatch.setattr(keras.Model, "fit", lambda _, stream, **__: seen.append(stream))
    normalize = measure_normalization(split.images, "channel")
    recipe = Recipe(epochs=1, batch_size=8, rotation=0, shift=0, flip=False)
    begun = []

    def initialize(part):
        begun.append({image.tobytes() for image in part.images})
        return mini_model(num_classes=3).get_weights()

    folds = cross_validate(split, 3, recipe, normalize, CPU, initialize)
    assert folds.logits.shape == (36, 3)
    assert np.isfinite(folds.logits).all()
    assert len(seen) == 3
    counts = np.zeros(36, int)
    for stream in seen:
        fitted = {image.numpy().tobytes() for images, _ in stream.take(3) for image in images}
        counts += [normalize(image[None]).numpy()[0].tobytes() in fitted for image in split.images]
    assert set(counts) == {2}
    assert [sum(image.tobytes() in part for part in begun) for image in split.images] == [2] * 36


def test_every_fold_starts_from_the_same_weights(monkeypatch):
    """Random ones by default."""
    shrink_network(monkeypatch)
    split = draw_split(6, seed=0)
    firsts = []

    def spoil(self, *_, **__):
        firsts.append(self.get_weights()[0])
        self.set_weights([weight + 1 for weight in self.get_weights()])

    monkeypatch.setattr(keras.Model, "fit", spoil)
    cross_validate(split, 3, Recipe(epochs=1), measure_normalization(split.images, "channel"), CPU)
    np.testing.assert_array_equal(firsts[1], firsts[0])
    np.testing.assert_array_equal(firsts[2], firsts[0])


def test_accuracy_has_an_interval(tmp_path):
    """Wilson's, over all images. The answers can be saved and read."""
    folds = Folds(np.eye(2)[[0, 1, 1, 1]], np.array([0, 1, 1, 0]), 2)
    save_folds(tmp_path / "folds.npz", folds)
    folds = read_folds(tmp_path / "folds.npz")
    assert folds.accuracy == 0.75
    assert folds.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert "in 2 folds on the 4 training and validation images: accuracy 75.0 % (95 % interval 30.1 % to 95.4 %)" in (
        describe_folds(folds)
    )
