"""Keeps the weights of the best epoch of a run, and stops a run that no longer improves."""

import math
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.run import tell_damaged


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the lowest validation loss, and stops a run that no longer improves.

    It saves them in a file for resumed runs.
    """

    def __init__(self, path: Path, patience: int) -> None:
        """Save the weights at `path`; stop after `patience` epochs without a lower loss, or never if that is 0."""
        super().__init__()
        self.path = path
        self.patience = patience
        self.epoch = -1
        self.loss = math.inf
        self.weights: list[npt.NDArray[np.float32]] = []
        self.is_over = False

    def restore(self, finished_epochs: int) -> None:
        """Load what the run saved before it was interrupted.

        Raises:
            ResumeError: the file is damaged.
        """
        if not self.path.exists():
            return
        try:
            with self.path.open("rb") as file, np.load(file) as arrays:
                saved = dict(arrays)
            epoch, loss = int(saved.pop("epoch")), float(saved.pop("loss"))
        except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise tell_damaged(self.path) from error
        if epoch < finished_epochs:  # otherwise, the epoch is in no checkpoint and runs again
            self.epoch, self.loss, self.weights = epoch, loss, list(saved.values())
            self._judge(finished_epochs - 1)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Note the epoch."""
        self.current = epoch

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keep the weights if their validation loss is the lowest."""
        loss = (logs or {})["loss"]
        if not loss < self.loss:
            return
        self.epoch, self.loss = self.current, loss
        self.weights = self.model.get_weights()
        written = self.path.with_name(f"writing-{self.path.name}")
        np.savez(written, *self.weights, epoch=self.epoch, loss=loss)
        written.replace(self.path)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Stop the run if its validation loss has not improved for `patience` epochs."""
        self._judge(epoch)
        if self.is_over:
            self.model.stop_training = True

    def _judge(self, epoch: int) -> None:
        self.is_over = bool(self.patience) and epoch - self.epoch >= self.patience
