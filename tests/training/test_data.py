"""Behaviour of training.data."""

import pickle

import keras
import numpy as np
import pytest

from tests.training.images import CLASSES, draw_split, write_folder
from training import cifar10
from training.data import Split, load_data, split_validation
from training.failures import DataError


def test_an_image_folder_gives_images_and_class_names(image_folder, split):
    """PNGs are read exactly, and folders name the classes."""
    data = load_data(str(image_folder))
    assert data.class_names == CLASSES
    assert data.pixel_encoding == "png"
    np.testing.assert_array_equal(data.train.images, split.images)
    np.testing.assert_array_equal(data.train.labels, split.labels)
    assert len(data.test.labels) == 24


@pytest.mark.parametrize("extension", ["jpeg", "webp", "bmp", "gif"])
def test_any_image_format_is_read(tmp_path, extension):
    """An image folder may use any format that the service reads; the data records which."""
    write_folder(tmp_path / "train", draw_split(1, 0), extension)
    write_folder(tmp_path / "test", draw_split(1, 1), extension)
    data = load_data(str(tmp_path))
    assert data.train.images.shape == (3, 32, 32, 3)
    assert data.pixel_encoding == extension


def test_the_encoding_includes_both_splits(tmp_path):
    """A model trained on PNGs and tested on JPEGs was measured on lossy images."""
    write_folder(tmp_path / "train", draw_split(1, 0), "png")
    write_folder(tmp_path / "test", draw_split(1, 1), "jpeg")
    assert load_data(str(tmp_path)).pixel_encoding == "jpeg, png"


def write_archive(folder, count=4):
    rng = np.random.default_rng(0)
    folder.mkdir()
    pixels = {}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels[name] = rng.integers(0, 256, (count, 3072), np.uint8)
        batch = {b"data": pixels[name], b"labels": rng.integers(0, 10, count).tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return pixels


@pytest.mark.parametrize("inside", [True, False])
def test_the_official_archive_is_read(tmp_path, inside):
    """Its folder, or the folder that contains it, with the channels last."""
    pixels = write_archive(tmp_path / "cifar-10-batches-py")
    data = load_data(str(tmp_path / "cifar-10-batches-py" if inside else tmp_path))
    assert data.class_names == cifar10.CLASSES
    assert data.train.images.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(data.test.images[0, :, :, 1].ravel(), pixels["test_batch"][0, 1024:2048])


@pytest.mark.parametrize("given", ["name", "origin"])
def test_the_official_archive_cannot_be_renamed(tmp_path, given):
    """A name or source is refused, instead of being ignored. An image folder accepts both."""
    write_archive(tmp_path / "cifar-10-batches-py")
    with pytest.raises(DataError, match=r"is the official archive.*leave out --data-name and --data-source"):
        load_data(str(tmp_path), **{given: "mine"})


def test_an_image_folder_can_be_named(image_folder):
    """By default it has its own name."""
    named, plain = load_data(str(image_folder), name="mine", origin="elsewhere"), load_data(str(image_folder))
    assert (named.name, named.source) == ("mine", "elsewhere")
    assert (plain.name, plain.source) == (image_folder.name, "image folder")


def test_the_archive_cannot_run_code(tmp_path):
    """A pickle that names a function is refused."""
    folder = tmp_path / "cifar-10-batches-py"
    write_archive(folder)
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path / "owned") + b"'\ntR.")
    with pytest.raises(DataError, match=r"names (os|posix)\.system"):
        load_data(str(tmp_path))
    assert not (tmp_path / "owned").exists()


def test_an_archive_of_the_wrong_shape_is_refused(tmp_path):
    """CIFAR-100, or a batch that was cut short."""
    folder = tmp_path / "cifar-10-batches-py"
    write_archive(folder)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 30), np.uint8), b"labels": [0, 1]}))
    with pytest.raises(DataError, match=r"test_batch contains uint8 \(2, 30\)"):
        load_data(str(tmp_path))


def test_missing_data_are_refused_with_the_path(tmp_path):
    """No folder, no splits, a class without images, a file that is not an image."""
    with pytest.raises(DataError, match="neither 'cifar10' nor a folder"):
        load_data(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"has no class folders, .* expected train/<class>/\*"):
        load_data(str(tmp_path))
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"no images in .*train/a"):
        load_data(str(tmp_path))
    (tmp_path / "train" / "a" / "x.png").write_text("no picture")
    (tmp_path / "train" / "b" / "x.png").write_text("no picture")
    (tmp_path / "test" / "a" / "x.png").write_text("no picture")
    (tmp_path / "test" / "b" / "x.png").write_text("no picture")
    with pytest.raises(DataError, match=r"can't read 4 files as images .*\n  '.*train/a/x\.png': the file"):
        load_data(str(tmp_path))


def test_a_broken_link_is_refused(tmp_path):
    """It stands for an image: an unmounted disk must not make the data smaller."""
    for split in ("train", "test"):
        write_folder(tmp_path / split, draw_split(1, 0), "png")
    (tmp_path / "train" / CLASSES[0] / "x.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"1 file as images .*:\n  '.*x\.png': .*No such file"):
        load_data(str(tmp_path))


def test_damaged_files_are_reported_together(tmp_path):
    """All of them, and their number. --skip-damaged leaves them out."""
    write_folder(tmp_path, draw_split(30, 0), "png")
    files = sorted((tmp_path / CLASSES[1]).iterdir())[:25]
    for path in files:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="can't read 25 files as images") as error:
        load_data(str(tmp_path))
    lines = str(error.value).splitlines()
    assert all(str(path) in line for path, line in zip(files, lines[1:], strict=True))
    data = load_data(str(tmp_path), skip_damaged=True)
    assert len(data.train.labels) + len(data.test.labels) == 65
    assert sum(note.startswith("damaged, left out: ") for note in data.notes) == 25


def test_a_class_needs_an_image_for_each_part(tmp_path):
    """Without test images in the folder, these are training, validation and test."""
    write_folder(tmp_path, draw_split(3, 0), "png")
    next((tmp_path / CLASSES[1]).iterdir()).unlink()
    words = f"'{CLASSES[1]}' has 2 different images; 3 are needed, one each for training, --validation and the test"
    with pytest.raises(DataError, match=words):
        load_data(str(tmp_path))


def test_a_class_with_only_damaged_files_is_refused(tmp_path):
    """Otherwise the network would have a class without images."""
    write_folder(tmp_path, draw_split(3, 0), "png")
    for path in (tmp_path / CLASSES[2]).iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=f"no readable train images of {CLASSES[2]}"):
        load_data(str(tmp_path), skip_damaged=True)


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_folder_without_test_images_is_split(tmp_path, inside):
    """A fifth of each class is held out, the same images for the same seed, and the report says so."""
    write_folder(tmp_path / inside, draw_split(10, 0), "png")
    data = load_data(str(tmp_path))
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert not {image.tobytes() for image in data.train.images} & {image.tobytes() for image in data.test.images}
    assert "6 of 30 images are held out for testing (20% of each class)" in data.notes
    np.testing.assert_array_equal(load_data(str(tmp_path)).test.images, data.test.images)
    assert (load_data(str(tmp_path), seed=1).test.images != data.test.images).any()


def test_test_images_have_their_paths(tmp_path):
    """So that people can look at mistakes."""
    write_folder(tmp_path / "train", draw_split(2, 0), "png")
    test = draw_split(2, 1)
    write_folder(tmp_path / "test", test, "png")
    files = load_data(str(tmp_path)).test_files
    assert files == tuple(f"test/{CLASSES[label]}/{index:04}.png" for index, label in enumerate(test.labels))


def test_a_validation_folder_is_used(tmp_path):
    """If there is a test folder too, `val/` is the validation set."""
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        write_folder(tmp_path / split, draw_split(count, count), "png")
    data = load_data(str(tmp_path))
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [9, 6, 3]


def test_images_are_resized_to_the_given_size(image_folder):
    """The official images have 32 pixels."""
    assert load_data(str(image_folder), size=48).test.images.shape == (24, 48, 48, 3)


def test_enlarging_official_images_is_refused(tmp_path):
    """It would cost time and give nothing."""
    write_archive(tmp_path / "cifar-10-batches-py")
    with pytest.raises(DataError, match="32 x 32 pixels; leave out --size"):
        load_data(str(tmp_path), size=64)


def test_a_class_name_that_is_not_utf_8_is_refused(tmp_path):
    """Before training, in one line: metadata and card are UTF-8."""
    for split in ("train", "test"):
        for name in ("cat", "caf\udce9"):  # how Python represents a byte that is not UTF-8
            (tmp_path / split / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"the name of the class folder 'caf\\udce9' is not in UTF-8"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "file", "words"),
    [
        ({"name": "caf\udce9"}, "1.png", "the data's name"),
        ({"origin": "caf\udce9"}, "1.png", "the data's source"),
    ],
)
def test_a_name_that_is_not_utf_8_is_refused(tmp_path, given, file, words):
    """Before hours of training."""
    for split in ("train", "test"):
        write_folder(tmp_path / split, draw_split(1, 0), "png")
        first = next((tmp_path / split / CLASSES[0]).iterdir())
        first.rename(first.with_name(file))
    with pytest.raises(DataError, match=rf"{words} .*udce9' is not in UTF-8"):
        load_data(str(tmp_path), **given)


def test_a_failed_download_is_one_line(monkeypatch):
    """The message names the source."""

    def fail():
        raise OSError("URL fetch failure on\nhttps://…")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(DataError, match=r"official CIFAR-10 download .* failed: URL fetch failure on https") as error:
        load_data("cifar10")
    assert "\n" not in str(error.value)


def test_the_download_gives_the_same_data_as_the_archive(monkeypatch):
    """Keras's arrays are converted."""
    images, labels = np.zeros((3, 32, 32, 3), np.uint8), np.array([[0], [1], [9]], np.uint8)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: ((images, labels), (images, labels)))
    data = load_data("cifar10")
    assert data.train.labels.tolist() == [0, 1, 9]
    assert data.pixel_encoding == "lossless"


def test_the_validation_split_is_stratified_and_seeded():
    """The same seed gives the same images, and no image is in both splits."""
    split = Split(np.arange(60 * 3072).reshape(60, 32, 32, 3), np.repeat([0, 1, 2], 20))
    train, validation = split_validation(split, 0.1, seed=1)
    assert np.bincount(validation.labels).tolist() == [2, 2, 2]
    assert not set(train.images[:, 0, 0, 0]) & set(validation.images[:, 0, 0, 0])
    np.testing.assert_array_equal(split_validation(split, 0.1, seed=1)[1].images, validation.images)
    assert (split_validation(split, 0.1, seed=2)[1].images != validation.images).any()
