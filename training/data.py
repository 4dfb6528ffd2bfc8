"""Labelled images in memory: CIFAR-10's official download, its unpacked archive, or a folder of images.

It knows files and splits; batches and augmentation are `pipeline.py`'s.
"""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from app.errors import RequestError
from app.images.decode import decode_image
from training.config import IMAGE_SIZE, OFFICIAL
from training.errors import DataError

ARCHIVE = "cifar-10-batches-py"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
PIXELS_PER_IMAGE = 3 * 32 * 32
MAX_PIXELS = 500_000_000  # of one image: more than any camera makes


class Split(NamedTuple):
    """Images (N, 32, 32, 3) uint8 and their class numbers (N,) int64."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """A data set, its training images not yet split."""

    name: str
    source: str
    pixel_encoding: str
    class_names: tuple[str, ...]
    train: Split
    test: Split


def load_data(source: str, *, name: str | None = None, origin: str | None = None) -> Data:
    """Load the data set that `source` names: "cifar10", or the path of an official archive's folder or image folder.

    An image folder can't tell what it is: `name` (its own if there is none) and `origin` do; the official data can.

    Raises:
        DataError: it is missing, empty, unreadable or of another size; or an archive was given a name or an origin.
    """
    if source == OFFICIAL:
        return _download_cifar10()
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"no data: {source!r} is neither {OFFICIAL!r} nor a folder")
    for archive in (folder, folder / ARCHIVE):
        if (archive / "data_batch_1").exists():
            if name or origin:
                raise DataError(
                    f"{archive} is the official archive, which has a name and a source of its own; "
                    "leave out --data-name and --data-source"
                )
            return _read_archive(archive)
    return _read_folder(folder, name or folder.resolve().name, origin or "image folder")


def split_validation(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split a training set into training and validation images, each class in proportion.

    Every class keeps an image to train on, so that the training labels tell how many classes there are.

    Raises:
        DataError: there are too few images, of all or of one class, for a share of `fraction`.
    """
    images, labels = split
    try:
        train, validation = train_test_split(
            np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError as error:
        raise DataError(f"{len(labels)} training images are too few to hold out {fraction:.1%}: {error}") from error
    lost = np.setdiff1d(labels, labels[train])
    if lost.size:
        raise DataError(f"too few training images of class number {lost[0]} to hold out {fraction:.1%}: none is left")
    return Split(images[train], labels[train]), Split(images[validation], labels[validation])


def describe_content(train: Split, validation: Split) -> dict[str, Any]:
    """Return what tells the data of one run from that of another: sizes, and a digest of all pixels and labels."""
    digest = hashlib.sha256()
    for array in (*train, *validation):
        digest.update(np.ascontiguousarray(array).data)
    return {
        "train_size": len(train.labels),
        "validation_size": len(validation.labels),
        "sha256": digest.hexdigest(),
    }


def _download_cifar10() -> Data:
    try:
        (train_images, train_labels), (test_images, test_labels) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras passes on whatever urllib, tarfile or its hash check raise
        raise DataError(f"the official CIFAR-10 download ({CIFAR10_SOURCE}) failed: {_one_line(error)}") from error
    return _official_data(
        Split(train_images, train_labels.ravel().astype(np.int64)),
        Split(test_images, test_labels.ravel().astype(np.int64)),
    )


def _read_archive(folder: Path) -> Data:
    train = [_read_batch(folder / f"data_batch_{number}") for number in range(1, 6)]
    return _official_data(
        Split(np.concatenate([split.images for split in train]), np.concatenate([split.labels for split in train])),
        _read_batch(folder / "test_batch"),
    )


def _official_data(train: Split, test: Split) -> Data:
    return Data("CIFAR-10", CIFAR10_SOURCE, "lossless", CIFAR10_CLASSES, train, test)


class _BatchUnpickler(pickle.Unpickler):
    """Loads arrays and nothing else: a pickle may name any function, and a data file may come from anywhere."""

    ALLOWED = frozenset({"ndarray", "dtype", "_reconstruct", "encode"})

    def find_class(self, module: str, name: str) -> Any:
        if name not in self.ALLOWED or module not in {"numpy", "_codecs"} | {
            f"numpy.{core}.multiarray" for core in ("core", "_core")
        }:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_batch(path: Path) -> Split:
    try:
        with path.open("rb") as file:
            batch = _BatchUnpickler(file, encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path} is no batch of the official CIFAR-10 archive: {_one_line(error)}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS_PER_IMAGE) or not len(labels):
        raise DataError(f"{path} holds {pixels.dtype} {pixels.shape}, not uint8 (N, {PIXELS_PER_IMAGE})")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # stored by channel
    return Split(np.ascontiguousarray(images), labels)


def _read_folder(folder: Path, name: str, origin: str) -> Data:
    _require_text("the data's name", name)
    _require_text("the data's source", origin)
    class_names = _class_folders(folder / "train")
    if (test_classes := _class_folders(folder / "test")) != class_names:
        raise DataError(f"{folder}: train/ has the classes {class_names}, test/ has {test_classes}")
    train, train_encodings = _read_split(folder / "train", class_names)
    test, test_encodings = _read_split(folder / "test", class_names)
    encodings = ", ".join(sorted(train_encodings | test_encodings))
    _require_text("an image's ending", encodings)
    return Data(name, origin, encodings, class_names, train, test)


def _class_folders(split: Path) -> tuple[str, ...]:
    if not split.is_dir():
        raise DataError(f"no images: looked for {split / '<class>' / '*'}, and {split} is no folder")
    names = tuple(sorted(path.name for path in split.iterdir() if path.is_dir() and not _is_hidden(path)))
    for name in names:
        _require_text(f"{split}: the name of the class folder", name)
    if len(names) < 2:  # noqa: PLR2004 - one class leaves nothing to tell apart
        raise DataError(f"{split} has {len(names)} class folders; at least two are needed")
    return names


def _require_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # neither metadata nor card could hold it, after hours of training
        raise DataError(f"{what} {text!a} is not in UTF-8") from error


def _read_split(split: Path, class_names: tuple[str, ...]) -> tuple[Split, set[str]]:
    """Read every image of a split as the service would decode it; also return the file name endings met."""
    files = []
    for label, name in enumerate(class_names):
        paths = sorted(path for path in (split / name).iterdir() if not _is_hidden(path))
        if folders := [path for path in paths if path.is_dir()]:  # their images would be left out in silence
            raise DataError(f"{folders[0]} is a folder; the images of a class lie side by side in {split / name}")
        if not paths:
            raise DataError(f"no images in {split / name}")
        files += [(path, label) for path in paths]
    images = np.empty((len(files), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    # disable=None: no bar where the output is no terminal
    for image, (path, _) in zip(
        images, tqdm(files, desc=str(split), unit=" images", leave=False, disable=None), strict=True
    ):
        try:
            image[:] = decode_image(path.read_bytes(), (IMAGE_SIZE, IMAGE_SIZE), max_pixels=MAX_PIXELS)
        except (RequestError, OSError) as error:
            raise DataError(f"{path} can't be read as an image: {_one_line(error)}") from error
    labels = np.array([label for _, label in files], np.int64)
    return Split(images, labels), {path.suffix.lower().lstrip(".") or "unnamed" for path, _ in files}


def _is_hidden(path: Path) -> bool:
    """Whether a program left it for itself, such as .DS_Store or Jupyter's .ipynb_checkpoints."""
    return path.name.startswith(".")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
