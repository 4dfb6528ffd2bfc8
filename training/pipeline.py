"""Makes batches: a seeded stream of shuffled, augmented and normalized images.

Batch number `step` is a pure function of (images, recipe, step), so a resumed run gets the same batches as an
uninterrupted one.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.augment import augment, mix
from training.config import SMALL_SCALE, Recipe
from training.data import Split
from training.network import STRIDE

BLOCK = 1000  # images to measure at once, because all of them as int64 would take a gigabyte


@dataclass(frozen=True)
class Normalization:
    """Turns uint8 pixels into the network's input: (pixels / 255 - mean) / deviation.

    Both broadcast against (N, H, W, 3): `mean` is () or (3,), `deviation` is (H, W, 3) or (3,).
    """

    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Normalize (N, H, W, 3) pixels from 0 to 255 of any type to float32."""
        return (tf.cast(images, tf.float32) / 255 - self.mean) / self.deviation


def measure_normalization(images: npt.NDArray[np.uint8], kind: str) -> Normalization:
    """Measure the statistics of (N, H, W, 3) training images: "position" as in the article, or "channel"."""
    epsilon = 1e-3  # a quarter of a grey level, against division by zero for constant pixels
    axes = (0,) if kind == "position" else (0, 1, 2)
    total: Any = 0
    squares: Any = 0
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].astype(np.int64)  # integers give exact sums
        total, squares = total + block.sum(axes), squares + (block**2).sum(axes)
    count = images.size // total.size
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if kind == "position":
        mean = mean.mean()
    return Normalization(np.asarray(mean / 255, np.float32), np.asarray(deviation / 255 + epsilon, np.float32))


def steps_per_epoch(count: int, recipe: Recipe) -> int:
    """Return the number of batches in which each of `count` images occurs once."""
    return math.ceil(count / recipe.batch_size)


class Phase(NamedTuple):
    """Epochs that train on images of one size."""

    image_size: int
    epochs: range


def list_phases(recipe: Recipe) -> list[Phase]:
    """Return the phases of a run: small images for the recipe's share of the epochs, then full-size ones."""
    small = round(recipe.low_resolution * recipe.epochs)
    small_size = round(SMALL_SCALE * recipe.size / STRIDE) * STRIDE
    phases = (Phase(small_size, range(small)), Phase(recipe.size, range(small, recipe.epochs)))
    return [phase for phase in phases if phase.epochs]


def make_train_dataset(
    split: Split, recipe: Recipe, normalize: Normalization, *, num_classes: int, start_epoch: int = 0
) -> tf.data.Dataset:
    """Make the stream of training batches from `start_epoch` to the last epoch of its phase.

    Each epoch has a new order of all images. Its last batch is filled up with the first images of the next order, so
    that all batches have the same size.

    Returns:
        Batches of (N, H, W, 3) float32 normalized images in the phase's size and (N, classes) float32 one-hot labels.
    """
    count = len(split.labels)
    steps = steps_per_epoch(count, recipe)
    phase = next(phase for phase in list_phases(recipe) if start_epoch in phase.epochs)
    images, labels = tf.constant(split.images), tf.one_hot(split.labels, num_classes)
    coins = tf.random.stateless_uniform((count,), (recipe.seed, 0)) < 0.5  # noqa: PLR2004 - heads

    def make_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions = step * recipe.batch_size + tf.range(recipe.batch_size, dtype=tf.int64)
        epochs = tf.cast(positions // count, tf.int32)
        # The seed of each position contains its epoch, so every epoch has its own order. (The op needs three numbers.)
        seeds = tf.stack([tf.fill([recipe.batch_size], recipe.seed), epochs], axis=1)
        indices = tf.raw_ops.RandomIndexShuffle(
            index=tf.cast(positions % count, tf.int32),
            seed=tf.pad(seeds, [[0, 0], [0, 1]]),
            max_index=count - 1,
            rounds=8,  # with 4, similar seeds give similar orders
        )
        mirrored = tf.gather(coins, indices) ^ (epochs % 2 == 1) if recipe.alternating_flip else None
        batch = tf.cast(tf.gather(images, indices), tf.float32)
        seed = tf.stack([tf.cast(recipe.seed, tf.int64), step])
        batch, targets = mix(augment(batch, recipe, seed, mirrored), tf.gather(labels, indices), recipe, seed)
        return _resize(normalize(batch), phase.image_size), targets

    return (
        tf.data.Dataset.range(start_epoch * steps, phase.epochs.stop * steps)
        .map(make_batch, num_parallel_calls=2, deterministic=True)
        .prefetch(4)
    )


def make_dataset(
    split: Split,
    normalize: Normalization,
    *,
    num_classes: int,
    batch_size: int = 256,
    image_size: int | None = None,
) -> tf.data.Dataset:
    """Make batches of a split in order, for validation, resized to `image_size` if set; see `make_train_dataset`."""
    one_hot = keras.utils.to_categorical(split.labels, num_classes)
    dataset = tf.data.Dataset.from_tensor_slices((split.images, one_hot)).batch(batch_size)
    return dataset.map(lambda images, labels: (_resize(normalize(images), image_size), labels)).prefetch(2)


def _resize(images: tf.Tensor, size: int | None) -> tf.Tensor:
    """Resize (N, H, W, 3) images to `size` pixels a side; return images of that size unchanged."""
    if size in {None, images.shape[1]}:
        return images
    return tf.image.resize(images, (size, size), antialias=True)
