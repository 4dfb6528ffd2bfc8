"""Saves the state of a run after every epoch, and reads it to resume the run."""

import math
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.run import tell_damaged


def read_checkpoint(path: Path) -> tuple[int, list[Any]]:
    """Read the number of finished epochs, and the values of `list_variables` that `Checkpoint` saved.

    Raises:
        ResumeError: the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            saved = dict(arrays)
        return int(saved.pop("finished_epochs")), list(saved.values())
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise tell_damaged(path) from error


def list_variables(model: keras.Model) -> list[keras.Variable]:
    """List the whole state of a run: weights, averages, the seeds of dropout, the optimizer's state."""
    return [*model.variables, *model.optimizer.variables]


class Checkpoint(keras.callbacks.Callback):
    """Saves every variable and the number of finished epochs after every epoch, atomically.

    It stops a run that has diverged, and keeps the checkpoint of the last good epoch. It also stops fitting at the end
    of the phase, after `stop` epochs. The number of epochs is saved because the optimizer's steps do not give it: in
    float16 it skips steps whose gradients overflow.

    Keras's own model file lacks the seeds of dropout and the list of weights that do not decay, so a run resumed from
    it would differ from an uninterrupted one.
    """

    def __init__(self, path: Path, stop: int) -> None:
        super().__init__()
        self.path = path
        self.stop = stop
        self.diverged = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write to a temporary file, then rename it."""
        if not all(math.isfinite(value) for value in (logs or {}).values()):
            self.diverged = self.model.stop_training = True
            return
        written = self.path.with_name(f"writing-{self.path.name}")
        values = (keras.ops.convert_to_numpy(variable) for variable in list_variables(self.model))
        np.savez(written, *values, finished_epochs=epoch + 1)
        written.replace(self.path)
        if epoch + 1 == self.stop:
            self.model.stop_training = True
