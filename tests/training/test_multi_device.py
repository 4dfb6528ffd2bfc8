"""Training on several devices, tried on two logical CPU devices: they fit what one device fits."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import draw_split
from training.config import Recipe
from training.devices import Devices
from training.errors import DeviceError
from training.pipeline import measure_normalization
from training.run import CHECKPOINT_FILE, HISTORY_FILE
from training.train import train

ROOT = Path(__file__).parents[2]
# One step an epoch, so that history.csv has the loss of each step; validation images that two devices can't share
# evenly; no dropout, of which each device draws its own.
RECIPE = {"epochs": 3, "batch_size": 48, "learning_rate": 0.001, "dropout": 0.0}

# TensorFlow takes its logical devices before anything else happens in a process: hence a process for each run.
CODE = """
import sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from tests.training.test_multi_device import fit
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if sys.argv[1] == "2" else tf.distribute.get_strategy()
assert strategy.num_replicas_in_sync == int(sys.argv[1])
fit(strategy, sys.argv[2], Path(sys.argv[3]))
"""


def fit(strategy: tf.distribute.Strategy, optimizer: str, run: Path) -> None:
    train_split, validation_split = draw_split(16, seed=0), draw_split(5, seed=1)
    train(
        train_split,
        validation_split,
        Recipe(**RECIPE, optimizer=optimizer),
        measure_normalization(train_split.images, "channel"),
        Devices(strategy, "float32", jit_compile=False, description=""),
        run,
    )


def run_on(devices: int, optimizer: str, run: Path) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(devices), optimizer, str(run)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (run / HISTORY_FILE).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("optimizer", "tolerances"),
    [
        # The first loss tells whether the devices see the same batch in the same way, the second whether they make the
        # same step of it. From there on noise grows: each step depends on the signs of sums close to zero.
        ("sgd", (1e-5, 1e-4, 1e-3)),
        # Orthogonalising raises the smallest parts of a gradient, noise included, to the size of the largest.
        ("muon", (1e-5, 2e-2, 1e-1)),
    ],
)
def test_two_devices_fit_what_one_fits(tmp_path, optimizer, tolerances):
    """The same loss on the same global batches up to float noise, and as whole a checkpoint."""
    one = run_on(1, optimizer, tmp_path / "one")
    two = run_on(2, optimizer, tmp_path / "two")
    for step_one, step_two, tolerance in zip(one, two, tolerances, strict=True):
        assert float(step_two["loss"]) == pytest.approx(float(step_one["loss"]), rel=tolerance)
    with np.load(tmp_path / "one" / CHECKPOINT_FILE) as first, np.load(tmp_path / "two" / CHECKPOINT_FILE) as second:
        assert [array.shape for array in first.values()] == [array.shape for array in second.values()]


class Five:
    """As many devices as share no batch of 48 evenly."""

    num_replicas_in_sync = 5


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    """Before anything is written."""
    with pytest.raises(DeviceError, match="5 devices can't share a batch of 48 evenly; change --batch-size"):
        fit(Five(), "adam", tmp_path / "run")
    assert not (tmp_path / "run").exists()
