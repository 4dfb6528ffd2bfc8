import csv
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import draw_split
from training.config import Recipe
from training.devices import Devices
from training.errors import ResumeError
from training.pipeline import measure_normalization
from training.train import CHECKPOINT_FILE, HISTORY_FILE, Checkpoint, train

CPU = Devices(tf.distribute.get_strategy(), "float32", jit_compile=False, description="CPU")
RECIPE = Recipe(epochs=2, batch_size=16, optimizer="muon", schedule="cosine", warmup=0.2, weight_decay=0.05)
TRAIN, VALIDATION = draw_split(8, seed=0), draw_split(4, seed=1)
NORMALIZE = measure_normalization(TRAIN.images, "channel")


def fit(run, *, resume=False):
    return train(TRAIN, VALIDATION, RECIPE, NORMALIZE, CPU, run, resume=resume)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run both epochs; what the disk held after the first one is kept beside, as a power cut would have left it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish_epoch = Checkpoint.on_epoch_end

    def copy_first(self, epoch, logs=None):
        finish_epoch(self, epoch, logs)
        if epoch == 0:
            shutil.copytree(run, run.with_name("cut"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "on_epoch_end", copy_first)
        return run, fit(run)


def test_resumed_run_equals_an_uninterrupted_one(whole):
    """Cut in its second epoch and resumed, a run ends with the same weights up to float noise, dropout included."""
    run, model = whole
    resumed = fit(run.with_name("cut"), resume=True)
    for ours, theirs in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert int(resumed.optimizer.iterations) == int(model.optimizer.iterations) == 4
    with (run.with_name("cut") / HISTORY_FILE).open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]


def test_history_tells_pace_and_learning_rate(whole):
    """history.csv has a row an epoch, with what a person follows a run by; TensorBoard has its logs."""
    run, _ = whole
    with (run / HISTORY_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "learning_rate",
        "images_per_second",
        "minutes_left",
    } <= rows[0].keys()
    assert float(rows[0]["images_per_second"]) > 0
    assert float(rows[1]["minutes_left"]) == 0
    assert list(run.glob("tensorboard/*/*"))


def test_resuming_a_finished_run_trains_no_more(whole):
    """A run whose last epoch is done comes back as it is, ready for export."""
    run, model = whole
    again = fit(run, resume=True)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_resuming_with_another_recipe_is_refused(whole):
    """The message names each value that changed."""
    run, _ = whole
    other = RECIPE.model_copy(update={"epochs": 9})
    with pytest.raises(ResumeError, match="another recipe: epochs was 2, now 9"):
        train(TRAIN, VALIDATION, other, NORMALIZE, CPU, run, resume=True)


def test_resuming_nothing_says_where_it_looked(tmp_path):
    """A folder without a checkpoint can't be resumed."""
    with pytest.raises(ResumeError, match=f"{tmp_path}/{CHECKPOINT_FILE} does not exist"):
        fit(tmp_path, resume=True)


def test_mixed_precision_trains_to_float32_probabilities(tmp_path):
    """In bfloat16 the weights stay float32 and so do the probabilities."""
    devices = Devices(tf.distribute.get_strategy(), "mixed_bfloat16", jit_compile=False, description="CPU")
    recipe = RECIPE.model_copy(update={"epochs": 1, "optimizer": "sgd"})
    model = train(TRAIN, VALIDATION, recipe, NORMALIZE, devices, tmp_path)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
    assert model.get_layer("stem").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
