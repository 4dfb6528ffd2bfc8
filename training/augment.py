"""Random changes of a training batch that keep its labels: moves, mirror images, scale and colour.

Every change of geometry is folded into one transform a picture, so pixels are interpolated once at most.
"""

import math

import keras
import tensorflow as tf

from training.config import Recipe

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def augment(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Change each picture of a batch at random.

    Args:
        images: (N, H, W, 3) float32, 0 to 255.
        recipe: how far each change may go.
        seed: (2,) integers; the same seed gives the same changes.

    Returns:
        (N, H, W, 3) float32, 0 to 255.
    """
    geometry_seed, color_seed = tf.unstack(tf.random.split(tf.cast(seed, tf.int32)))
    return _change_colors(_move(images, recipe, geometry_seed), recipe, color_seed)


def _move(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    u = tf.random.stateless_uniform((6, count), seed, -1, 1)
    angle = u[0] * math.radians(recipe.rotation)
    scale = tf.where(tf.abs(u[4]) <= recipe.scale_share, tf.exp(u[1] * math.log1p(recipe.scale)), 1.0)
    # whole pixels: a plain shift then copies pixels and blurs nothing
    down, right = (tf.round(u[2 + axis] * recipe.shift * size) for axis, size in enumerate((height, width)))
    mirror = tf.where(u[5] < 0, -1.0, 1.0) if recipe.flip else tf.ones(count)
    # From a place in the new picture to one in the old, both measured from the centre: mirror, shrink and turn back.
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    a, b, d, e = cos * mirror, -sin, sin * mirror, cos
    c = center_x + right - a * center_x - b * center_y
    f = center_y + down - d * center_x - e * center_y
    transform = tf.stack([a, b, c, d, e, f, tf.zeros(count), tf.zeros(count)], axis=1)
    return keras.ops.image.affine_transform(images, transform, interpolation="bilinear", fill_mode=recipe.fill)


def _change_colors(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    if not (recipe.color or recipe.gray):
        return images
    count = tf.shape(images)[0]
    factors = 1 + tf.random.stateless_uniform((3, count, 1, 1, 1), seed, -recipe.color, recipe.color)
    brightness, contrast, saturation = tf.unstack(factors)
    is_gray = tf.random.stateless_uniform((count, 1, 1, 1), seed + 1) < recipe.gray
    saturation = tf.where(is_gray, 0.0, saturation)
    gray = tf.reduce_sum(images * LUMA, axis=-1, keepdims=True)
    level = tf.reduce_mean(gray, axis=(1, 2), keepdims=True)
    images = gray + (images - gray) * saturation
    images = (level + (images - level) * contrast) * brightness
    return tf.clip_by_value(images, 0, 255)
