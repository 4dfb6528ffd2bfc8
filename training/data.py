"""Labelled images in memory: CIFAR-10's official download, its unpacked archive, or a folder of images.

It knows pixels and splits. `image_folder.py` finds files, `split.py` draws splits, `pipeline.py` makes batches.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from app.errors import RequestError
from app.images.decoders import Decoders
from training import cifar10
from training.config import IMAGE_SIZE, OFFICIAL
from training.failures import DataError, one_line
from training.image_folder import ImageFile, find_images, require_text
from training.split import hold_out

# Limits of one image, above those of any camera.
MAX_PIXELS = 500_000_000
MAX_BYTES = 2**30
MAX_DECODE_SECONDS = 60.0
TEST_SHARE = 0.2
"""Share of the images to hold out as test images, if the folder has none."""


class Split(NamedTuple):
    """Images (N, H, W, 3) uint8 and their class numbers (N,) int64."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """A data set."""

    name: str
    source: str
    pixel_encoding: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    validation: Split | None = None
    """None: split it off the training images."""
    test_files: tuple[str, ...] = ()
    """Where each test image came from: its path in the image folder, or its number in the official data."""
    train_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    """As `test_files`, of an image folder only."""
    notes: tuple[str, ...] = ()
    """How the folder was read, and which files were skipped."""


def load_data(
    source: str,
    *,
    name: str | None = None,
    origin: str | None = None,
    size: int = IMAGE_SIZE,
    seed: int = 0,
    skip_damaged: bool = False,
) -> Data:
    """Load the data set that `source` names: "cifar10", or the path of an official archive's folder or image folder.

    Args:
        source: what to load.
        name: name of an image folder; by default, that of the folder itself.
        origin: where an image folder came from.
        size: height and width to resize images to; 32 for the official data.
        seed: of the test split, if an image folder has none.
        skip_damaged: leave out files that can't be read as images.

    Raises:
        DataError: it is missing, empty, unreadable or of another size; or an archive was given a name or an origin.
    """
    if source == OFFICIAL:
        return _make_official_data(size, *cifar10.download())
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"no data: {source!r} is neither {OFFICIAL!r} nor a folder")
    if archive := cifar10.find_archive(folder):
        if name or origin:
            raise DataError(
                f"{archive} is the official archive, which has a name and a source of its own; "
                "leave out --data-name and --data-source"
            )
        return _make_official_data(size, *cifar10.read_archive(archive))
    name, origin = name or folder.resolve().name, origin or "image folder"
    require_text("the data's name", name)
    require_text("the data's source", origin)
    return _read_folder(folder, name, origin, size, seed, skip_damaged=skip_damaged)


def split_validation(
    split: Split, fraction: float, seed: int, class_names: Sequence[str] | None = None
) -> tuple[Split, Split]:
    """Split a training set into training and validation images, stratified by class, with copies on the same side.

    Raises:
        DataError: a class has too few images; it is named by `class_names`, or by its number.
    """
    images, labels = split
    names = class_names or [str(label) for label in range(int(labels.max()) + 1)]
    train, validation = hold_out(images, labels, fraction, seed, class_names=names)
    return Split(images[train], labels[train]), Split(images[validation], labels[validation])


def describe_content(train: Split, validation: Split) -> dict[str, Any]:
    """Return the identity of a run's data: sizes, and a digest of all pixels and labels."""
    digest = hashlib.sha256()
    for array in (*train, *validation):
        digest.update(np.ascontiguousarray(array).data)
    return {
        "train_size": len(train.labels),
        "validation_size": len(validation.labels),
        "sha256": digest.hexdigest(),
    }


def _make_official_data(size: int, train: cifar10.Labelled, test: cifar10.Labelled) -> Data:
    if size != IMAGE_SIZE:
        raise DataError(f"CIFAR-10 has images of {IMAGE_SIZE} x {IMAGE_SIZE} pixels; leave out --size")
    return Data(
        "CIFAR-10",
        cifar10.SOURCE,
        "lossless",
        cifar10.CLASSES,
        Split(*train),
        Split(*test),
        test_files=tuple(map(str, range(len(test[1])))),
    )


def _read_folder(folder: Path, name: str, origin: str, size: int, seed: int, *, skip_damaged: bool) -> Data:
    found = find_images(folder)
    damaged: list[str] = []
    train_files, train = _read_files(found.train, size, damaged)
    validation_files, validation = _read_files(found.validation, size, damaged)
    test_files, test = _read_files(found.test, size, damaged)
    if damaged and not skip_damaged:
        count = "1 file" if len(damaged) == 1 else f"{len(damaged)} files"
        listed = "".join(f"\n  {line}" for line in damaged)
        raise DataError(f"can't read {count} as images (--skip-damaged leaves them out):{listed}")
    notes = [
        f"read {found.layout}",
        *(f"skipped: {count} × {reason}" for reason, count in found.skipped.items()),
    ]
    notes += [f"damaged, left out: {line}" for line in damaged]
    _require_every_class(found.class_names, {"train": train, "validation": validation, "test": test})
    if not found.test:
        parts = ("training", "--validation", "the test set")
        kept, held = hold_out(*train, TEST_SHARE, seed, class_names=found.class_names, parts=parts)
        notes.append(
            f"{len(held)} of {len(train.labels)} images are held out for testing ({TEST_SHARE:.0%} of each class)"
        )
        test_files, test = [train_files[index] for index in held], Split(train.images[held], train.labels[held])
        train_files, train = [train_files[index] for index in kept], Split(train.images[kept], train.labels[kept])
    endings = {
        file.path.suffix.lower().lstrip(".") or "unnamed" for file in (*train_files, *validation_files, *test_files)
    }

    def name_files(files: list[ImageFile]) -> tuple[str, ...]:
        return tuple(file.path.relative_to(folder).as_posix() for file in files)

    return Data(
        name,
        origin,
        ", ".join(sorted(endings)),
        found.class_names,
        train,
        test,
        validation if found.validation else None,
        notes=tuple(notes),
        train_files=name_files(train_files),
        validation_files=name_files(validation_files),
        test_files=name_files(test_files),
    )


def _read_files(files: list[ImageFile], size: int, damaged: list[str]) -> tuple[list[ImageFile], Split]:
    """Read images as the service decodes them; add a line to `damaged` for each unreadable file."""
    images = np.empty((len(files), size, size, 3), np.uint8)
    read: list[ImageFile] = []
    # disable=None: no bar if the output is not a terminal
    progress = tqdm(files, desc="reading", unit=" images", leave=False, disable=None)
    with Decoders(1, max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES, timeout_seconds=MAX_DECODE_SECONDS) as decoders:
        for file in progress:
            try:
                images[len(read)] = decoders.decode_blocking(file.path.read_bytes(), (size, size))
            except (RequestError, OSError) as error:
                damaged.append(f"{str(file.path)!a}: {one_line(error)}")
            else:
                read.append(file)
    return read, Split(images[: len(read)], np.array([label for _, label in read], np.int64))


def _require_every_class(class_names: Sequence[str], splits: dict[str, Split]) -> None:
    """Raise if a split lacks a class, because all files of the class were damaged."""
    for split, (_, labels) in splits.items():
        if len(labels) and (missing := set(range(len(class_names))) - set(labels.tolist())):
            names = ", ".join(class_names[label] for label in sorted(missing))
            raise DataError(f"no readable {split} images of {names}")
