"""Training on several devices, tried on two logical CPU devices: they fit what one device fits."""

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
# One step an epoch, so that history.csv has the loss of each step; validation images that two devices can't share
# evenly; no dropout, of which each device draws its own. Weights lose a tenth a step: if each device took it once more,
# the losses would tell.
RECIPE = {"epochs": 3, "batch_size": 48, "learning_rate": 0.001, "dropout": 0.0, "weight_decay": 100.0}

# TensorFlow takes its logical devices before anything else happens in a process: hence one of its own for all runs.
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
    # The first loss tells whether the devices see the same batch in the same way, the second whether they make the
    # same step of it. From there on noise grows: each step depends on the signs of sums close to zero.
    "sgd": (1e-5, 1e-4, 1e-3),
    # Orthogonalising raises the smallest parts of a gradient, noise included, to the size of the largest.
    "muon": (1e-5, 1e-3, 1e-2),
}


def fit(strategy: tf.distribute.Strategy, optimizer: str, run: Path) -> None:
    train_split, validation_split = draw_split(16, seed=0), draw_split(5, seed=1)
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
    """Run each optimizer on one device and on two; gives the folder of <optimizer>/<one or two>."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("optimizer", TOLERANCES)
def test_two_devices_fit_what_one_fits(runs, optimizer):
    """The same loss on the same global batches up to float noise, and as whole a checkpoint."""
    one, two = runs / optimizer / "one", runs / optimizer / "two"
    steps = zip(read_history(one), read_history(two), strict=True)
    for (step_one, step_two), tolerance in zip(steps, TOLERANCES[optimizer], strict=True):
        assert step_two["loss"] == pytest.approx(step_one["loss"], rel=tolerance)
    with np.load(one / CHECKPOINT_FILE) as first, np.load(two / CHECKPOINT_FILE) as second:
        assert [array.shape for array in first.values()] == [array.shape for array in second.values()]


class Many(NamedTuple):
    """What is asked of a strategy before anything is begun."""

    num_replicas_in_sync: int


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    """Before anything is written."""
    with pytest.raises(DeviceError, match="5 devices can't share a batch of 48 evenly; change --batch-size"):
        fit(Many(5), "adam", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_devices_than_validation_images_are_refused(tmp_path):
    """One of them would have nothing to validate."""
    with pytest.raises(DeviceError, match="16 devices can't share 15 validation images; raise --validation"):
        fit(Many(16), "adam", tmp_path / "run")
    assert not (tmp_path / "run").exists()
