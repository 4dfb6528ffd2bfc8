"""Reads CIFAR-10 from the official download or the unpacked archive."""

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.failures import DataError, one_line

ARCHIVE = "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
PIXELS_PER_IMAGE = 3 * 32 * 32

Labelled = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""(N, 32, 32, 3) images and (N,) class numbers."""


def download() -> tuple[Labelled, Labelled]:
    """Download the official data, or take them from Keras's cache; return training and test images.

    Raises:
        DataError: the download failed.
    """
    try:
        (train_images, train_labels), (test_images, test_labels) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras passes on whatever urllib, tarfile or its hash check raise
        raise DataError(f"the official CIFAR-10 download ({SOURCE}) failed: {one_line(error)}") from error
    return (
        (train_images, train_labels.ravel().astype(np.int64)),
        (test_images, test_labels.ravel().astype(np.int64)),
    )


def find_archive(folder: Path) -> Path | None:
    """Return the folder with the unpacked archive's batches, `folder` or one inside; None if there is none."""
    return next((path for path in (folder, folder / ARCHIVE) if (path / "data_batch_1").exists()), None)


def read_archive(folder: Path) -> tuple[Labelled, Labelled]:
    """Read the batches in `folder`; return training and test images.

    Raises:
        DataError: a batch is missing, damaged or of another size.
    """
    train = [_read_batch(folder / f"data_batch_{number}") for number in range(1, 6)]
    images, labels = zip(*train, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), _read_batch(folder / "test_batch")


class _BatchUnpickler(pickle.Unpickler):
    """Loads arrays only, because a pickle from an untrusted source could call any function."""

    ALLOWED = frozenset({"ndarray", "dtype", "_reconstruct", "encode"})

    def find_class(self, module: str, name: str) -> Any:
        if name not in self.ALLOWED or module not in {"numpy", "_codecs"} | {
            f"numpy.{core}.multiarray" for core in ("core", "_core")
        }:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_batch(path: Path) -> Labelled:
    try:
        with path.open("rb") as file:
            batch = _BatchUnpickler(file, encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{path} is not a batch of the official CIFAR-10 archive: {one_line(error)}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS_PER_IMAGE) or not len(labels):
        raise DataError(f"{path} contains {pixels.dtype} {pixels.shape}, not uint8 (N, {PIXELS_PER_IMAGE})")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # stored by channel
    return np.ascontiguousarray(images), labels
