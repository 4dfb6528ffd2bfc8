"""A job on made-up images, and short runs, that several tests look at."""

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

from tests.training.fitting import (
    Terminal,
    Whole,
    fit,
    list_epochs,
    shrink_network,
    train_shallow_network,
)
from tests.training.images import draw_split, write_folder, write_noise
from training.checkpoint import Checkpoint
from training.data import Split


@pytest.fixture(autouse=True, scope="session")
def _from_scratch():
    """Start from random weights. The images are few, so training would start from the shipped version by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.options.START_MODELS", Path("nowhere"))
        patch.setattr("training.options.SMALL_FOLDER", 0)
        yield


@pytest.fixture(autouse=True)
def _float32():
    """Reset Keras's global dtype policy, which training sets."""
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
    """Run `python -m training` once, from data to card; returns the folder with models/ and runs/."""
    folder = tmp_path_factory.mktemp("job")
    history, table = folder / "history.md", folder / "table.md"
    history.write_text("## How it came about\n\nBy a test.\n")
    table.write_text("## What else was tried\n\nNothing.\n")
    notes = ("--notes", str(history), "--notes", str(table))
    places = ("--models", f"{folder}/models", "--runs", f"{folder}/runs", "--name", "shapes")
    for index in range(3):
        write_noise(folder / "noise" / f"{index}.png", seed=index)
    elsewhere = ("--test-set", f"again={image_folder}/test", "--foreign", f"noise={folder}/noise")
    train_shallow_network("--data", str(image_folder), *places, *notes, *elsewhere)
    return folder


@pytest.fixture(scope="session")
def version(job: Path) -> Path:
    return job / "models" / "shapes" / "1"


@pytest.fixture(scope="session")
def quantized(job: Path, image_folder: Path) -> Path:
    """Export the job's finished run again with --quantize; returns the version's folder."""
    places = ("--models", f"{job}/models", "--runs", f"{job}/runs", "--name", "shapes", "--resume", "--quantize")
    train_shallow_network("--data", str(image_folder), *places)
    return job / "models" / "shapes" / "2"


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """Train a smaller network."""
    with pytest.MonkeyPatch.context() as patch:
        shrink_network(patch)
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Run both epochs. Keeps copies as after a power cut: `cut` before the second checkpoint, `after` the first one."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish_epoch = Checkpoint.on_epoch_end

    def keep_copies(self, epoch, logs=None):
        if epoch == 1:
            shutil.copytree(run, run.with_name("cut"))
        finish_epoch(self, epoch, logs)
        if epoch == 0:
            shutil.copytree(run, run.with_name("after"))

    traced = []
    train_step = keras.Model.train_step

    def count_traces(self, data):
        traced.append(self.name)
        return train_step(self, data)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        shrink_network(patch)
        patch.setattr(Checkpoint, "on_epoch_end", keep_copies)
        patch.setattr(keras.Model, "train_step", count_traces)
        model = fit(run)
    return Whole(run, model, printed.getvalue(), len(traced))


@pytest.fixture(scope="session")
def resumed(whole):
    """Resume the run that was cut in its second epoch, on a terminal; returns the model and what was printed."""
    cut = whole.run.with_name("cut")
    assert list_epochs(cut) == ["0", "1"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(Terminal()) as terminal:
        shrink_network(patch)
        model = fit(cut, resume=True)
    return model, terminal.getvalue()
