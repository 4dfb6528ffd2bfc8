"""Behaviour of training.augment."""

import numpy as np
import pytest
import tensorflow as tf

from training.augment import LUMA, augment, mix
from training.config import Recipe

STILL = Recipe(rotation=0, shift=0, flip=False)
RNG = np.random.default_rng(0)
IMAGES = tf.constant(RNG.uniform(0, 255, (64, 32, 32, 3)), tf.float32)
RAMP = tf.constant(np.broadcast_to(np.linspace(0, 255, 32), (64, 32, 32))[..., None].repeat(3, -1), tf.float32)
SEED = tf.constant([0, 1])


def change(images, **values):
    return augment(images, STILL.model_copy(update=values), SEED).numpy()


def test_without_changes_pixels_stay_the_same():
    """Exactly, if every change is off."""
    np.testing.assert_array_equal(change(IMAGES), IMAGES)


def test_the_same_seed_gives_the_same_changes():
    """A batch's changes depend only on the seed."""
    article = Recipe()
    np.testing.assert_array_equal(augment(IMAGES, article, SEED), augment(IMAGES, article, SEED))
    assert (augment(IMAGES, article, SEED).numpy() != augment(IMAGES, article, SEED + 1).numpy()).any()


def test_flip_mirrors_about_half_of_the_images():
    """A mirrored image has the columns in reverse order, without interpolation."""
    changed = change(IMAGES, flip=True)
    mirrored = (changed == IMAGES.numpy()[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (changed == IMAGES).numpy().all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 16 < mirrored.sum() < 48


def measure_moves(changed, ramp=RAMP):
    """Return by how many pixels each image of a ramp was shifted."""
    return ((ramp[:, 16, 16, 0] - changed[:, 16, 16, 0]) / (255 / 31)).numpy()


def test_shift_moves_by_whole_pixels_within_bounds():
    """By at most the given share of the width."""
    moves = measure_moves(change(RAMP, shift=5 / 32))
    np.testing.assert_allclose(moves, moves.round(), atol=1e-3)
    assert np.abs(moves).max() <= 5.001
    assert len(np.unique(moves.round())) > 6


def test_horizontal_and_vertical_shifts_are_independent():
    """Their correlation is small."""
    downwards = tf.transpose(RAMP, (0, 2, 1, 3))
    right = measure_moves(change(RAMP, shift=5 / 32))
    down = measure_moves(change(downwards, shift=5 / 32), downwards)
    assert abs(np.corrcoef(right, down)[0, 1]) < 0.4


@pytest.mark.parametrize(("fill", "mode"), [("nearest", "edge"), ("reflect", "symmetric")])
def test_the_recipe_chooses_the_pixels_beyond_the_border(fill, mode):
    """The last pixel repeated, or the mirror image."""
    changed = change(RAMP, shift=5 / 32, fill=fill)
    padded = np.pad(RAMP[0, 16, :, 0], 5, mode)
    for picture, move in zip(changed, measure_moves(changed).round().astype(int), strict=True):
        np.testing.assert_allclose(picture[16, :, 0], padded[5 - move : 37 - move], atol=1e-2)


def test_rotation_stays_within_bounds():
    """The direction of a ramp's gradient gives each image's angle."""
    changed = change(RAMP, rotation=10)[:, 12:20, 12:20, 0]
    down, right = (np.gradient(changed, axis=axis).mean(axis=(1, 2)) for axis in (1, 2))
    angles = np.degrees(np.arctan2(down, right))
    assert 8 < np.abs(angles).max() <= 10.01
    assert angles.min() < 0 < angles.max()


def measure_factors(changed):
    """Return the factor by which each image of a ramp was scaled, from its slope."""
    return (255 / 31) / np.gradient(changed[:, 16, 12:20, 0], axis=1).mean(axis=1)


def test_scale_enlarges_and_shrinks():
    """By at most the given factor."""
    factors = measure_factors(change(RAMP, scale=0.25))
    assert 0.79 < factors.min() < 0.9
    assert 1.1 < factors.max() < 1.26


def test_only_a_share_of_the_images_is_scaled():
    """The others keep their size."""
    factors = measure_factors(change(RAMP, scale=0.25, scale_share=0.5))
    assert 16 < (np.abs(factors - 1) < 1e-3).sum() < 48


def test_only_a_share_of_the_images_turns_grey():
    """The others keep their colours."""
    is_gray = np.ptp(change(IMAGES, gray=0.5), axis=-1).max(axis=(1, 2)) < 1e-3
    assert 16 < is_gray.sum() < 48


def test_color_changes_brightness_contrast_and_saturation():
    """Independently, up and down, within bounds."""
    reddish = 100 + 0.1 * RAMP + (10, 0, 0)

    def measure(images):
        gray = images @ np.array(LUMA)
        return gray.mean(axis=(1, 2)), gray.std(axis=(1, 2)), (images[..., 0] - images[..., 1]).mean(axis=(1, 2))

    after, before = measure(change(reddish, color=0.3)), measure(reddish.numpy())
    level, spread, redness = (new / old for new, old in zip(after, before, strict=True))
    factors = np.stack([level, spread / level, redness / spread])
    assert (np.abs(factors - 1) <= 0.301).all()
    assert (factors.min(axis=1) < 0.8).all()
    assert (factors.max(axis=1) > 1.2).all()
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 0.4


def test_colours_stay_between_0_and_255():
    """Brighter pixels are clipped."""
    colored = change(IMAGES, color=0.5)
    assert colored.min() >= 0
    assert colored.max() <= 255
    assert (colored != IMAGES).numpy().any()


def test_stretching_keeps_the_area():
    """A scaled image gets wider and lower, or narrower and higher, by at most the given factor."""
    downwards = tf.transpose(RAMP, (0, 2, 1, 3))
    values = {"scale": 1e-6, "aspect": 0.44}
    wide = measure_factors(change(RAMP, **values))
    high = measure_factors(change(downwards, **values).transpose(0, 2, 1, 3))
    np.testing.assert_allclose(wide * high, 1, atol=0.01)
    assert 1 / 1.21 < wide.min() < 0.9
    assert 1.1 < wide.max() < 1.21


def test_a_plain_border_has_one_colour():
    """For a share of the images. Pixels inside the border do not change."""
    filled, plain = (change(RAMP, shift=5 / 32, plain=share) for share in (0.0, 0.5))
    is_plain = (filled != plain).any(axis=(1, 2, 3))
    assert 16 < is_plain.sum() < 48
    for picture, other, right in zip(plain, filled, measure_moves(filled).round().astype(int), strict=True):
        inside = slice(max(right, 0), 32 + min(right, 0))
        rows = (picture != other).any(axis=(1, 2))  # an image that was shifted down has complete rows of border
        np.testing.assert_array_equal(picture[~rows, inside], other[~rows, inside])
        border = picture[(picture != other).any(axis=-1)]
        assert (border == border[:1]).all()


def test_plain_borders_are_the_mean_white_or_random():
    """White is the background of transparent images."""
    plain = change(RAMP, scale=0.9, plain=1.0)
    corners = plain[plain[:, 0, 0, 0] == plain[:, 31, 31, 0]][:, 0, 0]
    mean, white = np.abs(corners - 127.5).max(1) < 1, (corners == 255).all(1)
    assert mean.any()
    assert white.any()
    assert (~mean & ~white).any()


def test_only_a_share_of_the_images_is_compressed_as_jpeg():
    """With the same result as an image library's."""
    smooth = 100 + 0.3 * RAMP + (10, 0, 0)
    changed = change(smooth, jpeg=0.25)
    is_compressed = (changed != smooth).numpy().any(axis=(1, 2, 3))
    assert is_compressed.tolist() == [True] * 16 + [False] * 48
    assert np.abs(changed - smooth)[:16].mean() < 3
    noisy = change(IMAGES, jpeg=0.25)[:16]
    errors = np.abs(noisy - IMAGES[:16]).mean(axis=(1, 2, 3))
    assert errors.max() > 1.1 * errors.min()


def test_jpeg_subsamples_chroma():
    """As in the files of phones and browsers: alternating columns of two colours become their mean."""
    colors = np.where(np.arange(32)[:, None] % 2, (180.0, 80, 80), (80.0, 110, 180))
    images = tf.constant(np.broadcast_to(colors, (4, 32, 32, 3)), tf.float32)
    red_minus_blue = change(images, jpeg=1.0)[..., 0] - change(images, jpeg=1.0)[..., 2]
    assert np.ptp(red_minus_blue[:, 8:24, 8:24].mean(axis=1), axis=1).max() < 100


def test_cutout_blanks_a_square():
    """Of the given size, filled with the image's mean. The border cuts off part of some squares."""
    changed = change(IMAGES, cutout=8)
    blank = (changed != IMAGES.numpy()).any(axis=-1)
    assert blank.sum(axis=(1, 2)).max() == 64
    assert 16 <= blank.sum(axis=(1, 2)).min() < 64
    for picture, image, mask in zip(changed, IMAGES.numpy(), blank, strict=True):
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert mask.sum() == rows.sum() * columns.sum()
        np.testing.assert_allclose(picture[mask], np.broadcast_to(image.mean((0, 1)), (mask.sum(), 3)), atol=0.01)


def test_cutmix_shows_a_rectangle_of_the_next_image():
    """In the recipe's share of the images. Labels are mixed by area, so each still adds up to 1."""
    labels = tf.one_hot(np.arange(64) % 10, 10)
    mixed, targets = mix(IMAGES, labels, STILL.model_copy(update={"cutmix": 0.5}), SEED)
    foreign = (mixed != IMAGES).numpy().any(axis=-1)
    assert not foreign[:32].any()
    areas = foreign.mean(axis=(1, 2))
    assert (areas[32:] > 0).mean() > 0.9
    assert 0.2 < areas[32:].mean() < 0.6
    np.testing.assert_array_equal(mixed[40].numpy()[foreign[40]], IMAGES[39].numpy()[foreign[40]])
    expected = (1 - areas[:, None]) * labels + areas[:, None] * np.roll(labels, 1, axis=0)
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    assert mix(IMAGES, labels, STILL, SEED) == (IMAGES, labels)
