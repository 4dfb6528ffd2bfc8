"""Finds the images of an image folder: which file belongs to which class and split, and which files are skipped.

It reads no pixels and imports no TensorFlow.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from app.images.formats import SUFFIXES
from app.litter import is_litter
from training.failures import DataError

SPLITS = {
    "train": frozenset({"train", "training"}),
    "validation": frozenset({"val", "valid", "validation"}),
    "test": frozenset({"test", "testing"}),
}
"""Names of the folders of each split, in upper or lower case."""
LAYOUTS = "train/<class>/* with or without test/<class>/* and val/<class>/*, or <class>/*"


class ImageFile(NamedTuple):
    """One file and the number of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class ImageFolder:
    """The files of an image folder by split. A split without a folder is empty."""

    class_names: tuple[str, ...]
    train: list[ImageFile]
    validation: list[ImageFile]
    test: list[ImageFile]
    layout: str
    """The layout that was found."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Numbers of skipped files and folders, by reason."""


def find_images(folder: Path) -> ImageFolder:
    """Find the images of `folder`, in one of the layouts in `LAYOUTS`.

    Without a test folder, the validation images are the test images.

    Raises:
        DataError: it has another layout, the splits have different classes, or a class has no images.
    """
    skipped: Counter[str] = Counter()
    splits = _find_splits(folder, skipped)
    if not splits:
        classes = _list_classes(folder, skipped)
        files = _list_files(classes, skipped)
        return ImageFolder(tuple(classes), files, [], [], f"{folder}/<class>/*", skipped)
    found = {split: _list_classes(path, skipped) for split, path in splits.items()}
    _require_same_classes({splits[split]: set(classes) for split, classes in found.items()})
    files_of = {split: _list_files(classes, skipped) for split, classes in found.items()}
    layout = " and ".join(f"{path}/<class>/*" for path in splits.values())
    if "validation" in files_of and "test" not in files_of:
        files_of["test"] = files_of.pop("validation")
        layout += f"; {splits['validation'].name}/ is the test set, since there is no test/"
    return ImageFolder(
        tuple(found["train"]),
        files_of["train"],
        files_of.get("validation", []),
        files_of.get("test", []),
        layout,
        skipped,
    )


def _find_splits(folder: Path, skipped: Counter[str]) -> dict[str, Path]:
    """Find the folders of splits; none if the class folders are in `folder` itself."""
    named: dict[str, list[Path]] = {split: [] for split in SPLITS}
    others = []
    for path in _list_folders(folder):
        split = next((split for split, names in SPLITS.items() if path.name.casefold() in names), None)
        # A class may also be named "train": its folder contains images and no folders.
        if split and next(_list_folders(path), None):
            named[split].append(path)
        else:
            others.append(path)
    splits = {split: paths[0] for split, paths in named.items() if paths}
    for split, paths in named.items():
        if len(paths) > 1:
            names = " and ".join(f"{path.name}/" for path in sorted(paths))
            raise DataError(f"{folder} has {names}, which both mean the {split} images; keep one of them")
    if not splits:
        if others and all(any(path.name.casefold() in names for names in SPLITS.values()) for path in others):
            raise DataError(f"{others[0]} has no class folders in it; expected {LAYOUTS}")
        return {}
    if "train" not in splits:
        found = ", ".join(f"{path.name}/" for path in splits.values())
        raise DataError(f"{folder} has {found} and no train/; expected {LAYOUTS}")
    for path in others:
        skipped[f"folder beside {splits['train'].name}/: {path.name}/"] += 1
    return splits


def _list_classes(folder: Path, skipped: Counter[str]) -> dict[str, list[Path]]:
    """List the class folders of a split by name, sorted. Two Unicode forms of a name are one class."""
    classes: dict[str, list[Path]] = {}
    for path in _list_folders(folder):
        require_text(f"{folder}: the name of the class folder", path.name)
        # macOS decomposes accents (NFD) where other systems don't (NFC).
        classes.setdefault(unicodedata.normalize("NFC", path.name), []).append(path)
    if len(classes) < 2:  # noqa: PLR2004 - one class is nothing to classify
        inner = [path for paths in classes.values() for path in paths if next(_list_folders(path), None)]
        hint = f"; did you mean {inner[0]}?" if inner else f"; expected {LAYOUTS}"
        count = "1 class folder" if len(classes) == 1 else "no class folders"
        raise DataError(f"{folder} has {count}, and at least two are needed{hint}")
    for path in folder.iterdir():
        if is_litter(path.name) and path.is_dir():
            skipped[f"hidden folder, or one of the operating system: {path}/"] += 1
        elif not (is_litter(path.name) or path.is_dir()):
            skipped["file beside the class folders"] += 1
    return dict(sorted(classes.items()))


def _list_files(classes: dict[str, list[Path]], skipped: Counter[str]) -> list[ImageFile]:
    files: list[ImageFile] = []
    empty: list[str] = []
    for label, folders in enumerate(classes.values()):
        before = len(files)
        for path in sorted(path for folder in folders for path in folder.iterdir()):
            if is_litter(path.name):
                skipped["file or folder of the operating system"] += 1
            elif path.is_dir():
                skipped[f"image in a subfolder of a class, such as {path}/"] += _count_files(path)
            elif path.suffix and path.suffix.lower() not in SUFFIXES:
                skipped[f"file with the unsupported suffix {path.suffix.lower()!a}"] += 1
            else:
                files.append(ImageFile(path, label))
        if len(files) == before:
            empty.append(str(folders[0]))
    if empty:
        raise DataError(f"no images in {', '.join(empty)}; add some, or remove the folder")
    return files


def _require_same_classes(classes: dict[Path, set[str]]) -> None:
    every = set.union(*classes.values())
    missing = [f"{path} has no {', '.join(sorted(every - names))}" for path, names in classes.items() if every - names]
    if missing:
        raise DataError(f"the splits have different classes: {'; '.join(missing)}")


def require_text(what: str, text: str) -> None:
    """Raise unless a text is valid Unicode, because the metadata and the card are UTF-8.

    Raises:
        DataError: the text, called `what`, is not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{what} {text!a} is not in UTF-8") from error


def _list_folders(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_dir() and not is_litter(path.name))


def _count_files(folder: Path) -> int:
    return sum(not is_litter(name) for _, _, names in os.walk(folder) for name in names)
