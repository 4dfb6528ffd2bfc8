"""Runs training with small networks on made-up images, in seconds."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import keras
import pytest
import tensorflow as tf

from app.contract import TrainingRun
from tests.training.images import draw_split
from training.__main__ import main
from training.config import Recipe
from training.devices import Devices
from training.pipeline import measure_normalization
from training.run import HISTORY_FILE
from training.train import train

# SGD, because Muon takes longest to trace. The runs below and the documentation's own use Muon.
SMALL_RUN = (
    "--folds", "0", "--epochs", "2", "--batch-size", "16", "--validation", "0.25", "--optimizer", "sgd",
    "--learning-rate", "0.02",
)  # fmt: skip

START = TrainingRun(
    recipe="fast", command="python -m training", commit="0" * 40, hardware="2 cores", precision="float32"
)

CPU = Devices(tf.distribute.get_strategy(), "float32", jit_compile=False, description="CPU")
RECIPE = Recipe(epochs=2, batch_size=16, optimizer="muon", schedule="cosine", warmup=0.2, weight_decay=0.05)
SGD = RECIPE.model_copy(update={"optimizer": "sgd"})  # faster to trace than Muon
TRAIN, VALIDATION = draw_split(8, seed=0), draw_split(4, seed=1)
NORMALIZE = measure_normalization(TRAIN.images, "channel")


def fit(run, *, recipe=RECIPE, devices=CPU, resume=False):
    start = START.model_copy(update={"precision": devices.precision})
    return train(TRAIN, VALIDATION, recipe, NORMALIZE, devices, run, start, resume=resume)


def in_precision(precision):
    return Devices(tf.distribute.get_strategy(), precision, jit_compile=False, description="CPU")


class Terminal(io.StringIO):
    """A terminal's output."""

    def isatty(self):
        return True


def list_epochs(run):
    with (run / HISTORY_FILE).open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


class Whole(NamedTuple):
    """A run of both epochs: its folder, the model, its output and the number of tracings of the training step."""

    run: Path
    model: keras.Model
    printed: str
    traces: int


def shrink_network(patch: pytest.MonkeyPatch) -> None:
    """Use two narrow units, one with pooling: every kind of layer, in a fraction of the time."""
    patch.setattr("training.network.STAGES", ((8, 1), (16, 1)))


def train_shallow_network(*arguments: str) -> None:
    """Run `python -m training` with one unit in each stage instead of three."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.network.STAGES", ((32, 1), (64, 1), (128, 1), (256, 1)))
        assert main([*arguments, *SMALL_RUN]) == 0
