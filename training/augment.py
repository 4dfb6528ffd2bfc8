"""Augments training batches at random: rotation, shift, flip, scale, colour, JPEG, cutout and CutMix.

All geometric changes of an image are one transform, so pixels are interpolated at most once.
"""

import math

import keras
import tensorflow as tf

from training.config import Recipe

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""
HALF_PIXEL = 0.5
"""From the centre of the last pixel to the image's border."""
JPEG_QUALITIES = (30, 96)
"""The lowest JPEG quality (inclusive) and the highest (exclusive)."""


def augment(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor, mirrored: tf.Tensor | None = None) -> tf.Tensor:
    """Change each image of a batch at random.

    Args:
        images: (N, H, W, 3) float32, 0 to 255, in random order: changes for a share of the images go to the first ones.
        recipe: the strength of each change.
        seed: (2,) integers, which determine the changes.
        mirrored: (N,) bool, which images to mirror if the recipe mirrors any; None draws them at random.

    Returns:
        (N, H, W, 3) float32, 0 to 255.
    """
    seeds = tf.unstack(tf.random.split(tf.cast(seed, tf.int32), 4))
    images = _move(images, recipe, seeds[0], mirrored)
    images = _change_colors(images, recipe, seeds[1])
    return _cut_out(_compress(images, recipe, seeds[2]), recipe, seeds[3])


def _move(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor, mirrored: tf.Tensor | None) -> tf.Tensor:
    count, (height, width) = tf.shape(images)[0], images.shape[1:3]
    u = tf.random.stateless_uniform((7, count), seed, -1, 1)
    angle = u[0] * math.radians(recipe.rotation)
    is_scaled = tf.abs(u[4]) <= recipe.scale_share
    scale = tf.where(is_scaled, tf.exp(u[1] * math.log1p(recipe.scale)), 1.0)
    # the square root for width and height, so that the area does not change
    stretch = tf.where(is_scaled, tf.exp(u[6] * math.log1p(recipe.aspect) / 2), 1.0)
    # whole pixels, so that a shift alone does not blur
    down, right = (tf.round(u[2 + axis] * recipe.shift * size) for axis, size in enumerate((height, width)))
    mirror = tf.where(u[5] < 0 if mirrored is None else mirrored, -1.0, 1.0) if recipe.flip else tf.ones(count)
    # Maps coordinates in the new image to the old one, relative to the centre: mirrors, and reverts scale and rotation.
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    a, b, d, e = cos * mirror / stretch, -sin / stretch, sin * mirror * stretch, cos * stretch
    c = center_x + right - a * center_x - b * center_y
    f = center_y + down - d * center_x - e * center_y
    transform = tf.stack([a, b, c, d, e, f, tf.zeros(count), tf.zeros(count)], axis=1)
    moved = keras.ops.image.affine_transform(images, transform, interpolation="bilinear", fill_mode=recipe.fill)
    if not recipe.plain:
        return moved
    y, x = tf.meshgrid(tf.range(float(height)), tf.range(float(width)), indexing="ij")
    a, b, c, d, e, f = (factor[:, None, None] for factor in (a, b, c, d, e, f))
    beyond = tf.maximum(
        tf.abs(a * x + b * y + c - center_x) - center_x, tf.abs(d * x + e * y + f - center_y) - center_y
    )
    is_plain, color = _draw_borders(images, recipe, tf.random.fold_in(seed, 1))
    return tf.where(((beyond > HALF_PIXEL) & is_plain)[..., None], color, moved)


def _draw_borders(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw which images get a plain border, (N, 1, 1), and its colour, (N, 1, 1, 3): their mean, white or random."""
    count = tf.shape(images)[0]
    u = tf.random.stateless_uniform((count, 5), seed)[:, None, None]
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    kind = u[..., 1:2]
    color = tf.where(kind < 1 / 3, mean, tf.where(kind < 2 / 3, 255.0, 255 * u[..., 2:]))
    return u[..., 0] < recipe.plain, color


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


def _compress(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Encode and decode the recipe's share of the images as JPEG with subsampled chroma."""
    if not recipe.jpeg:
        return images
    count = tf.cast(tf.round(recipe.jpeg * tf.cast(tf.shape(images)[0], tf.float32)), tf.int32)
    qualities = tf.random.stateless_uniform((count,), seed, *JPEG_QUALITIES, tf.int32)

    def compress(image_and_quality: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        file = tf.raw_ops.EncodeJpegVariableQuality(images=image_and_quality[0], quality=image_and_quality[1])
        return tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")

    pixels = tf.cast(tf.round(images[:count]), tf.uint8)
    spec = tf.TensorSpec(images.shape[1:], tf.uint8)
    compressed = tf.map_fn(compress, (pixels, qualities), fn_output_signature=spec)
    return tf.concat([tf.cast(compressed, tf.float32), images[count:]], axis=0)


def mix(images: tf.Tensor, labels: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Replace a random rectangle in the recipe's share of the images by that of the next image, as CutMix does.

    S. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019.

    Args:
        images: (N, H, W, 3) float32, in random order. The last ones are mixed, because `augment` encodes the first.
        labels: (N, classes) float32.
        recipe: its `cutmix` is the share.
        seed: (2,) integers, which determine the rectangles.

    Returns:
        The images, and the labels mixed in proportion to the areas.
    """
    if not recipe.cutmix:
        return images, labels
    count = tf.shape(images)[0]
    u = tf.random.stateless_uniform((3, count, 1), tf.random.fold_in(tf.cast(seed, tf.int32), 1))
    is_mixed = tf.range(count) >= tf.cast(tf.round((1 - recipe.cutmix) * tf.cast(count, tf.float32)), tf.int32)
    inside = _draw_squares(images, u[:2], tf.sqrt(u[2])) & is_mixed[:, None, None]
    share = tf.reduce_mean(tf.cast(inside, tf.float32), axis=(1, 2))[:, None]
    mixed = tf.where(inside[..., None], tf.roll(images, 1, axis=0), images)
    return mixed, (1 - share) * labels + share * tf.roll(labels, 1, axis=0)


def _cut_out(images: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Fill a square of each image with its mean colour. The border cuts off part of some squares."""
    if not recipe.cutout:
        return images
    centers = tf.random.stateless_uniform((2, tf.shape(images)[0], 1), seed)
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    return tf.where(_draw_squares(images, centers, recipe.cutout / images.shape[1])[..., None], mean, images)


def _draw_squares(images: tf.Tensor, centers: tf.Tensor, side: tf.Tensor | float) -> tf.Tensor:
    """Return which pixels are in a square, (N, H, W). `centers` (2, N, 1) and `side` are shares of the size."""
    rows, columns = (
        tf.abs(tf.range(0.5, size) / size - centers[axis]) < side / 2 for axis, size in enumerate(images.shape[1:3])
    )
    return rows[:, :, None] & columns[:, None, :]
