"""Behaviour of training.robustness."""

import numpy as np
import pytest

from tests.training.images import draw_split
from training.robustness import ENLARGED_8, VARIANTS, crop, encode_jpeg, enlarge, shrink, turn_gray

IMAGES = draw_split(4, seed=0).images


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_change_the_pixels_only(name):
    """Not the shape or the type."""
    changed = VARIANTS[name](IMAGES)
    assert (changed.shape, changed.dtype) == (IMAGES.shape, np.uint8)
    assert (changed != IMAGES).any()


def test_a_lower_jpeg_quality_changes_more():
    """Quality 30 differs more than quality 90."""
    errors = [np.abs(encode_jpeg(IMAGES, quality).astype(int) - IMAGES).mean() for quality in (90, 50, 30)]
    assert errors == sorted(errors)


def test_images_are_enlarged_to_256_pixels():
    """As the card says."""
    np.testing.assert_array_equal(VARIANTS[ENLARGED_8](IMAGES), enlarge(IMAGES, 256))


def test_shrinking_leaves_a_plain_border():
    """At 0.7 ×, an image has 22 pixels, in a border of its mean colour."""
    small = shrink(IMAGES, 0.7)
    np.testing.assert_array_equal(small[:, :5, :], np.broadcast_to(small[:, :1, :1], small[:, :5, :].shape))
    assert small[:, 5:27, 5:27].std() > 30


def test_cropping_an_image_of_one_colour_changes_nothing():
    """Enlarging has no border effects."""
    flat = np.full((1, 32, 32, 3), 90, np.uint8)
    np.testing.assert_array_equal(crop(flat, 1.3), flat)


def test_grey_images_have_equal_channels():
    """And the same brightness."""
    gray = turn_gray(np.full((1, 32, 32, 3), 90, np.uint8))
    assert (gray == 90).all()
