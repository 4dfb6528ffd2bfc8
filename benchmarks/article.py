"""The article's training code as published, changed only where Keras 3 requires it, to compare with."""

from collections.abc import Iterator

import keras
import numpy as np
from keras import layers
from keras.src.legacy.preprocessing.image import ImageDataGenerator  # the article's generator, which Keras 3 keeps here

from training.data import Split
from training.pipeline import Normalization

BATCH_SIZE = 128
STAGES = ((32, 3), (64, 3), (128, 3), (256, 3))
"""(filters, units) of each stage."""


def unit(x: keras.KerasTensor, filters: int, *, pool: bool = False) -> keras.KerasTensor:
    """Add the article's residual unit, with Keras's BatchNormalization."""
    res = x
    if pool:
        x = layers.MaxPooling2D(pool_size=2)(x)
        res = layers.Conv2D(filters, 1, strides=2, padding="same")(res)
    out = layers.BatchNormalization()(x)
    out = layers.Activation("relu")(out)
    out = layers.Conv2D(filters, 3, padding="same")(out)
    out = layers.BatchNormalization()(out)
    out = layers.Activation("relu")(out)
    out = layers.Conv2D(filters, 3, padding="same")(out)
    return layers.Add()([res, out])


def make_model(num_classes: int) -> keras.Model:
    """Build and compile the article's MiniModel in float32."""
    images = keras.Input((32, 32, 3), dtype="float32")
    x = layers.Conv2D(STAGES[0][0], 3, padding="same")(images)
    for stage, (filters, units) in enumerate(STAGES):
        for index in range(units):
            x = unit(x, filters, pool=stage > 0 and index == 0)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(layers.AveragePooling2D(pool_size=4)(x))
    model = keras.Model(images, layers.Dense(num_classes, activation="softmax")(x))
    # The article's Keras did not compile with XLA, which is Keras 3's default.
    model.compile(keras.optimizers.Adam(0.001), "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def normalize(split: Split) -> tuple[np.ndarray, Normalization]:
    """Normalize as the article does; return (N, 32, 32, 3) float32 images and the statistics."""
    images = split.images.astype("float32") / 255
    mean = images.mean()
    images -= mean
    deviation = images.std(axis=0) + 1e-7
    images /= deviation
    return images, Normalization(np.asarray(mean), deviation)


def make_batches(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Start the article's endless generator of (128, 32, 32, 3) float32 normalized images and one-hot labels."""
    generator = ImageDataGenerator(
        rotation_range=10, width_shift_range=5 / 32, height_shift_range=5 / 32, horizontal_flip=True
    )
    batches: Iterator[tuple[np.ndarray, np.ndarray]] = generator.flow(
        images, keras.utils.to_categorical(labels, num_classes), batch_size=BATCH_SIZE
    )
    return batches
