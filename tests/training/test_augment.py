import numpy as np
import tensorflow as tf

from training.augment import augment
from training.config import Recipe

STILL = Recipe(rotation=0, shift=0, flip=False)
RNG = np.random.default_rng(0)
IMAGES = tf.constant(RNG.uniform(0, 255, (64, 32, 32, 3)), tf.float32)
RAMP = tf.constant(np.broadcast_to(np.linspace(0, 255, 32), (64, 32, 32))[..., None].repeat(3, -1), tf.float32)
SEED = tf.constant([0, 1])


def change(images, **values):
    return augment(images, STILL.model_copy(update=values), SEED).numpy()


def test_nothing_asked_nothing_changed():
    """With every change off, pixels pass bit by bit."""
    np.testing.assert_array_equal(change(IMAGES), IMAGES)


def test_same_seed_same_changes():
    """A batch's changes depend on the seed alone."""
    article = Recipe()
    np.testing.assert_array_equal(augment(IMAGES, article, SEED), augment(IMAGES, article, SEED))
    assert (augment(IMAGES, article, SEED).numpy() != augment(IMAGES, article, SEED + 1).numpy()).any()


def test_flip_mirrors_about_half_of_the_images_exactly():
    """A mirrored picture is the picture's columns in reverse."""
    changed = change(IMAGES, flip=True)
    mirrored = (changed == IMAGES.numpy()[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (changed == IMAGES).numpy().all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 16 < mirrored.sum() < 48


def test_shift_moves_by_whole_pixels_within_bounds():
    """A shift copies pixels, at most the given share of the width."""
    changed = change(RAMP, shift=5 / 32, fill="nearest")
    moves = (RAMP[0, 16, 16, 0] - changed[:, 16, 16, 0]) / (255 / 31)
    np.testing.assert_allclose(moves, moves.numpy().round(), atol=1e-3)
    assert np.abs(moves).max() <= 5.001
    assert len(np.unique(moves.numpy().round())) > 6


def test_rotation_stays_within_bounds():
    """On a ramp, the gradient's direction gives each picture's angle."""
    changed = change(RAMP, rotation=10)[:, 12:20, 12:20, 0]
    down, right = (np.gradient(changed, axis=axis).mean(axis=(1, 2)) for axis in (1, 2))
    angles = np.degrees(np.arctan2(down, right))
    assert 8 < np.abs(angles).max() <= 10.01
    assert angles.min() < 0 < angles.max()


def test_scale_changes_size_both_ways():
    """On a ramp, the slope gives each picture's factor."""
    factors = (255 / 31) / np.gradient(change(RAMP, scale=0.25)[:, 16, 12:20, 0], axis=1).mean(axis=1)
    assert 0.79 < factors.min() < 0.9
    assert 1.1 < factors.max() < 1.26


def test_gray_and_color_stay_in_range():
    """Grey pictures have equal channels; no change leaves 0 to 255."""
    gray = change(IMAGES, gray=0.999)
    np.testing.assert_allclose(gray[..., 0], gray[..., 2], atol=1e-3)
    colored = change(IMAGES, color=0.5)
    assert colored.min() >= 0
    assert colored.max() <= 255
    assert (colored != IMAGES).numpy().any()
