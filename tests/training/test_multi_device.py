"""Training on two logical CPU devices gives the same result as on one."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tests.training.fitting import START
from tests.training.images import draw_split
from training.config import Recipe
from training.devices import Devices
from training.failures import DeviceError
from training.pipeline import measure_normalization
from training.run import CHECKPOINT_FILE, read_history
from training.train import train

ROOT = Path(__file__).parents[2]
# One step per epoch, so that history.csv has the loss of each step. No dropout, because each device draws its own.
# Weights decay by a tenth in each step: if each device applied the decay again, the losses would differ.
RECIPE = {"epochs": 3, "batch_size": 48, "learning_rate": 0.001, "dropout": 0.0, "weight_decay": 100.0}

# Logical devices must be set before TensorFlow starts, so all runs share a separate process.
CODE = """
import sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
import pytest
from tests.training.fitting import shrink_network
from tests.training.test_multi_device import TOLERANCES, fit
shrink_network(pytest.MonkeyPatch())
one, two = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert (one.num_replicas_in_sync, two.num_replicas_in_sync) == (1, 2)
for optimizer in TOLERANCES:
    for name, strategy in {"one": one, "two": two}.items():
        fit(strategy, optimizer, Path(sys.argv[1], optimizer, name))
"""
TOLERANCES = {
    # The first loss shows whether the devices get the same batch, the second whether they take the same step. After
    # that, rounding errors grow, because each step depends on the signs of sums close to zero.
    "sgd": (1e-5, 1e-4, 1e-3),
    # Orthogonalization raises the smallest parts of a gradient, noise included, to the size of the largest.
    "muon": (1e-5, 1e-3, 1e-2),
}


def fit(strategy: tf.distribute.Strategy, optimizer: str, run: Path) -> None:
    train_split = draw_split(16, seed=0)
    validation_split = draw_split(5, seed=1)  # 15 images, which two devices can't share evenly
    train(
        train_split,
        validation_split,
        Recipe(**RECIPE, optimizer=optimizer),
        measure_normalization(train_split.images, "channel"),
        Devices(strategy, "float32", jit_compile=False, description=""),
        run,
        START,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run each optimizer on one device and on two; returns the folder with <optimizer>/<one or two>."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("optimizer", TOLERANCES)
def test_two_devices_give_the_same_loss_as_one(runs, optimizer):
    """On the same global batches, up to rounding. Their checkpoint is complete."""
    one, two = runs / optimizer / "one", runs / optimizer / "two"
    steps = zip(read_history(one), read_history(two), strict=True)
    for (step_one, step_two), tolerance in zip(steps, TOLERANCES[optimizer], strict=True):
        assert step_two["loss"] == pytest.approx(step_one["loss"], rel=tolerance)
    with np.load(one / CHECKPOINT_FILE) as first, np.load(two / CHECKPOINT_FILE) as second:
        assert [array.shape for array in first.values()] == [array.shape for array in second.values()]


class Many(NamedTuple):
    """The attributes of a strategy that are read before training."""

    num_replicas_in_sync: int


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    """Before anything is written."""
    with pytest.raises(DeviceError, match="5 devices can't share a batch of 48 evenly; change --batch-size"):
        fit(Many(5), "adam", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_devices_than_validation_images_are_refused(tmp_path):
    """Some would have nothing to validate."""
    with pytest.raises(DeviceError, match="16 devices can't share 15 validation images; raise --validation"):
        fit(Many(16), "adam", tmp_path / "run")
    assert not (tmp_path / "run").exists()
