"""Images from other sources than the data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.runtime.load import Answers, Images
from training.elsewhere import measure_foreign, measure_test_set, read_images
from training.failures import DataError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "gray": (90, 90, 90)}
CLASSES = ("red", "green", "blue")
SIZE = (8, 8)


def tell_colour(images: Images) -> Answers:
    """Answer with the strongest channel; an image without one has a low typicality."""
    means = images.mean(axis=(1, 2), dtype=np.float32) / 255
    strength = np.ptp(means, axis=1)
    return Answers((means + 0.1) / (means + 0.1).sum(axis=1, keepdims=True), strength)


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Write images of one colour each into a folder."""

    def write(folder: str, *colours: str) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True)
        for index, colour in enumerate(colours):
            Image.new("RGB", (20, 10), COLOURS[colour]).save(path / f"{index}.png")
        return path

    return write


def test_accuracy_is_averaged_over_images_and_over_classes(write, tmp_path):
    """The mean of the classes weights them equally. Classes may be missing."""
    write("set/red", "red", "red", "red", "blue")
    write("set/green", "blue")
    measured = measure_test_set(tmp_path / "set", CLASSES, SIZE, tell_colour)
    assert (measured.images, measured.accuracy, measured.class_mean) == (5, 0.6, 0.375)


def test_an_unknown_class_is_refused(write, tmp_path):
    """So is a folder without classes."""
    write("set/yellow", "red")
    with pytest.raises(DataError, match="yellow does not have the name of a class of the model: red, green, blue"):
        measure_test_set(tmp_path / "set", CLASSES, SIZE, tell_colour)
    with pytest.raises(DataError, match="no folders of classes"):
        measure_test_set(write("empty"), CLASSES, SIZE, tell_colour)


def test_foreign_images_are_separated_by_typicality_and_by_probability(write):
    """The area under the curve, and the share below almost all of the known images."""
    known = Answers(np.float32([[0.8, 0.2]] * 19 + [[0.5, 0.5]]), np.linspace(0.1, 1, 20, dtype=np.float32))
    foreign = write("foreign", "gray", "gray", "red")
    measured = measure_foreign(foreign, SIZE, known, tell_colour)
    assert measured.images == 3
    assert measured.typicality_caught == pytest.approx(2 / 3)
    assert measured.typicality_auroc == pytest.approx((20 + 20 + 0.5) / 60)
    assert measured.probability_caught == pytest.approx(
        2 / 3
    )  # the answer for red has a higher probability than any known one
    assert measured.probability_auroc == pytest.approx(40 / 60)


def test_a_version_without_typicality_is_measured_by_probability(write):
    """For comparison."""
    known = Answers(np.float32([[0.9, 0.1]]))
    measured = measure_foreign(write("foreign", "gray"), SIZE, known, tell_colour)
    assert (measured.typicality_auroc, measured.typicality_caught, measured.probability_auroc) == (None, None, 1)


def test_images_are_read_like_uploads(write, tmp_path):
    """From all subfolders, in any size, with transparency on white. Other files are skipped."""
    write("set/a", "red")
    write("set/b/c", "green")
    (tmp_path / "set" / "notes.txt").write_text("none")
    Image.new("RGBA", (4, 4)).save(tmp_path / "set" / "clear.png")
    images = read_images(tmp_path / "set", SIZE)
    assert images.shape == (3, 8, 8, 3)
    assert [tuple(image[0, 0]) for image in images] == [(255, 0, 0), (0, 255, 0), (255, 255, 255)]


def test_an_unreadable_image_is_an_error(write):
    """It is not left out silently."""
    folder = write("set", "red")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"broken\.png' can't be read as an image"):
        read_images(folder, SIZE)
    with pytest.raises(DataError, match="no images in"):
        read_images(write("none"), SIZE)
