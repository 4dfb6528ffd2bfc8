"""Made-up images of three classes that differ by colour and shape."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from training.data import Split

CLASSES = ("disc", "square", "stripes")


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a (32, 32, 3) uint8 image of a class on a noisy background."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j] + rng.uniform(-0.2, 0.2, (2, 1, 1))
    mask = (x**2 + y**2 < 0.4, np.maximum(abs(x), abs(y)) < 0.5, np.sin(12 * x) > 0)[label]
    picture = rng.integers(0, 80, (32, 32, 3))
    picture[mask] += 60
    picture[mask, label] += 100
    return picture.astype(np.uint8)


def draw_split(per_class: int, seed: int) -> Split:
    """Draw `per_class` images of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), per_class)
    return Split(np.stack([draw(label, rng) for label in labels]), labels)


def write_folder(folder: Path, split: Split, extension: str) -> None:
    """Write a split as <class>/<number>.<extension>."""
    for index, (image, label) in enumerate(zip(*split, strict=True)):
        path = folder / CLASSES[label] / f"{index:04}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(image).save(file, extension)
        path.write_bytes(file.getvalue())


def write_noise(path: Path, seed: int) -> None:
    """Write an image that shows none of the classes."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
