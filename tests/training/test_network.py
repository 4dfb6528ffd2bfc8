"""Behaviour of training.network."""

import keras
import numpy as np

from training.network import mini_model, unit


def test_the_network_has_the_articles_parameters():
    """The exact number."""
    model = mini_model()
    assert model.count_params() == 4_374_538
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 4_368_714


def test_every_unit_has_the_articles_output_shape():
    """Each stage except the first halves the resolution in its first unit."""
    shapes = [layer.output.shape[1:] for layer in mini_model().layers if isinstance(layer, keras.layers.Add)]
    stages = [(32, 32, 32), (16, 16, 64), (8, 8, 128), (4, 4, 256)]
    assert shapes == [shape for shape in stages for _ in range(3)]


def test_weights_have_the_same_shapes_for_every_image_size():
    """So a run can start with small images and continue with full-size ones."""
    whole, small = mini_model(), mini_model((24, 24, 3))
    assert [weight.shape for weight in small.weights] == [weight.shape for weight in whole.weights]
    assert small.output_shape == whole.output_shape


def test_the_plain_network_has_no_shortcuts():
    """It lacks only the weights of the three projections."""
    plain = mini_model(residual=False)
    assert not [layer for layer in plain.layers if isinstance(layer, keras.layers.Add)]
    projections = sum(inputs * outputs + outputs for inputs, outputs in ((32, 64), (64, 128), (128, 256)))
    assert plain.count_params() == 4_374_538 - projections


def test_a_unit_adds_its_input():
    """If its last convolution is zero, it is the identity."""
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, unit(x, 4))
    model.layers[-2].set_weights([np.zeros((3, 3, 4, 4)), np.zeros(4)])
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(images, verbose=0), images)


def test_the_projection_reads_the_unpooled_input():
    """Every second pixel, not maxima."""
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, unit(x, 1, pool=True))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            identity = np.ones if layer.kernel_size == (1, 1) else np.zeros
            layer.set_weights([identity(layer.kernel.shape), np.zeros(1)])
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(model.predict(image, verbose=0), image[:, ::2, ::2])
