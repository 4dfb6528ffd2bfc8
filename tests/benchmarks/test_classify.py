"""The speed of `app.classify` compared with the runtime's."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import classify
from benchmarks.classify import Round


def test_a_row_has_both_speeds_and_their_ratio():
    """The last row has the medians, including that of the ratios."""
    text = classify.render([Round(90, 100, 1), Round(160, 200, 3), Round(85, 100, 2)]).splitlines()
    assert text[2] == "| 1 | 90 | 100 | 0.90 | 1.0 s |"
    assert text[-1] == "| median | 90 | 100 | 0.85 | 2.0 s |"


def test_the_images_are_small_distinct_and_of_two_formats(tmp_path):
    """PNG and JPEG, and no two are equal."""
    classify.write_pictures(tmp_path / "pictures", 10)
    images = [Image.open(path) for path in sorted((tmp_path / "pictures").iterdir())]
    assert [image.format for image in images] == ["PNG", "JPEG"] * 5
    assert {image.size for image in images} == {(32, 32)}
    assert len({np.asarray(image).tobytes() for image in images}) == 10


def test_the_command_must_classify_every_image(tmp_path):
    """Fewer lines than images are an error."""
    classify.write_pictures(tmp_path / "pictures", 3)
    assert classify.time_command(tmp_path / "pictures", 3) > 0
    with pytest.raises(SystemExit, match="4 images gave 3 lines"):
        classify.time_command(tmp_path / "pictures", 4)
