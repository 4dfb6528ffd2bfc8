"""Made-up images of three classes that differ by colour and shape, and one real run over them."""

import io
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from app.contract import TrainingRun
from training.__main__ import main
from training.data import Split

CLASSES = ("disc", "square", "stripes")
# SGD, since Muon's step takes longest to trace; test_train and the documentation's own run have it.
SMALL_RUN = (
    "--folds", "0", "--epochs", "2", "--batch-size", "16", "--validation", "0.25", "--optimizer", "sgd",
    "--learning-rate", "0.02",
)  # fmt: skip

START = TrainingRun(
    recipe="fast", command="python -m training", commit="0" * 40, hardware="2 cores", precision="float32"
)


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one (32, 32, 3) uint8 picture of a class on a noisy ground."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j] + rng.uniform(-0.2, 0.2, (2, 1, 1))
    mask = (x**2 + y**2 < 0.4, np.maximum(abs(x), abs(y)) < 0.5, np.sin(12 * x) > 0)[label]
    picture = rng.integers(0, 80, (32, 32, 3))
    picture[mask] += 60
    picture[mask, label] += 100
    return picture.astype(np.uint8)


def draw_split(per_class: int, seed: int) -> Split:
    """Draw `per_class` pictures of each class."""
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
    """Write a picture that shows none of the classes."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)).save(path)


def shrink_network(patch: pytest.MonkeyPatch) -> None:
    """Leave two narrow units, one that pools: every kind of layer, in a fraction of the time."""
    patch.setattr("training.network.STAGES", ((8, 1), (16, 1)))


def train_lower_network(*arguments: str) -> None:
    """Run `python -m training` with one unit in each stage instead of three."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.network.STAGES", ((32, 1), (64, 1), (128, 1), (256, 1)))
        assert main([*arguments, *SMALL_RUN]) == 0


@pytest.fixture(autouse=True, scope="session")
def _from_scratch():
    """The images here are few, so training would start from the version that ships, if it were found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.options.START_MODELS", Path("nowhere"))
        yield


@pytest.fixture(autouse=True)
def _float32():
    """Training sets Keras's global dtype policy; no test may inherit it."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def split() -> Split:
    return draw_split(16, seed=0)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory, split: Split) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_folder(folder / "train", split, "png")
    write_folder(folder / "test", draw_split(8, seed=1), "png")
    return folder


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """Run `python -m training` once, from data to card; returns the folder that holds models/ and runs/."""
    folder = tmp_path_factory.mktemp("job")
    history, table = folder / "history.md", folder / "table.md"
    history.write_text("## How it came about\n\nBy a test.\n")
    table.write_text("## What else was tried\n\nNothing.\n")
    notes = ("--notes", str(history), "--notes", str(table))
    places = ("--models", f"{folder}/models", "--runs", f"{folder}/runs", "--name", "shapes")
    for index in range(3):
        write_noise(folder / "noise" / f"{index}.png", seed=index)
    elsewhere = ("--test-set", f"again={image_folder}/test", "--foreign", f"noise={folder}/noise")
    train_lower_network("--data", str(image_folder), *places, *notes, *elsewhere)
    return folder


@pytest.fixture(scope="session")
def version(job: Path) -> Path:
    return job / "models" / "shapes" / "1"


@pytest.fixture(scope="session")
def quantized(job: Path, image_folder: Path) -> Path:
    """Export the job's finished run once more, with --quantize; returns the version's folder."""
    places = ("--models", f"{job}/models", "--runs", f"{job}/runs", "--name", "shapes", "--resume", "--quantize")
    train_lower_network("--data", str(image_folder), *places)
    return job / "models" / "shapes" / "2"
