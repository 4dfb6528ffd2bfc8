"""Fits the network: compiles it, runs the phases, saves checkpoints and resumes."""

import math
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.contract import TrainingRun
from training.config import Recipe
from training.data import Split, describe_content
from training.devices import Devices
from training.failures import DeviceError, DivergedError
from training.layers import choose_momentum
from training.network import mini_model
from training.optimizer import make_optimizer
from training.pipeline import Normalization, Phase, list_phases, make_dataset, make_train_dataset, steps_per_epoch
from training.run import (
    BEST_FILE,
    CHECKPOINT_FILE,
    HISTORY_FILE,
    require_resumable,
    start_run,
    tell_damaged,
    trim_history,
)

VALIDATION_BATCH_SIZE = 256
SHORT = 120  # seconds; longer times are printed in minutes


def train(
    train_split: Split,
    validation_split: Split,
    recipe: Recipe,
    normalize: Normalization,
    devices: Devices,
    run: Path,
    start: TrainingRun,
    *,
    resume: bool = False,
    weights: Sequence[npt.NDArray[np.float32]] | None = None,
) -> keras.Model:
    """Fit MiniModel; save a checkpoint of every epoch, history.csv and TensorBoard logs in the folder `run`.

    `start` is saved there. With `resume` it continues after the last finished epoch in `run`; the result is the same as
    without the interruption, up to rounding. `weights` are the initial weights; by default they are random.

    Returns:
        The network of the epoch with the lowest validation loss, (N, H, W, 3) float32 → (N, classes) float32.

    Raises:
        DeviceError: the devices can't share the recipe's batches evenly, or there are fewer validation images than
            devices.
        DivergedError: an epoch's loss is not finite.
        ResumeError: `resume` is set and `run` has no checkpoint, a damaged history, or was started by another recipe,
            on other data or in another precision.
    """
    replicas = devices.strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise DeviceError(f"{replicas} devices can't share a batch of {recipe.batch_size} evenly; change --batch-size")
    if len(validation_split.labels) < replicas:
        raise DeviceError(
            f"{replicas} devices can't share {len(validation_split.labels)} validation images; raise --validation"
        )
    content = describe_content(train_split, validation_split)
    if resume:
        require_resumable(run, recipe, content, devices.precision)
    else:
        start_run(run, recipe, content, start)
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(devices.precision)
    best = BestEpoch(run / BEST_FILE, recipe.patience)
    fitting = _Fitting(train_split, validation_split, recipe, normalize, devices, run, weights, best)
    start_epoch = 0
    if resume:
        start_epoch = _read_checkpoint(run / CHECKPOINT_FILE)[0]
        trim_history(run, start_epoch)
        best.restore(start_epoch)
    model = None
    for phase in list_phases(recipe):
        if start_epoch < phase.epochs.stop and not best.is_over:
            model = fitting.fit_phase(phase, max(start_epoch, phase.epochs.start))
    if model is None:
        model = fitting.build(recipe.size, start_epoch)
    if best.weights:
        model.set_weights(best.weights)
    else:  # a run of an older version, which kept no best epoch
        model.optimizer.finalize_variable_values(model.trainable_weights)  # their moving average, if the recipe has one
    return model


@dataclass(frozen=True)
class _Fitting:
    """Fits the phases of a run."""

    train_split: Split
    validation_split: Split
    recipe: Recipe
    normalize: Normalization
    devices: Devices
    run: Path
    weights: Sequence[npt.NDArray[np.float32]] | None
    best: "BestEpoch"

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return steps_per_epoch(len(self.train_split.labels), self.recipe)

    @property
    def num_classes(self) -> int:
        return int(self.train_split.labels.max()) + 1  # the training split has images of every class

    def build(self, image_size: int, finished_epochs: int) -> keras.Model:
        """Build the network for images of `image_size`, with the checkpoint's values if epochs have finished."""
        with self.devices.strategy.scope():
            steps = self.steps * self.recipe.epochs
            model = compile_network(self.num_classes, self.recipe, self.devices, steps, image_size)
            if self.weights is not None:
                model.set_weights(self.weights)
            if finished_epochs:
                _, saved = _read_checkpoint(self.run / CHECKPOINT_FILE)
                for variable, value in zip(_list_variables(model), saved, strict=True):
                    variable.assign(value)
        return model

    def fit_phase(self, phase: Phase, start_epoch: int) -> keras.Model:
        """Fit from `start_epoch`, which the checkpoint precedes, to the end of the phase."""
        recipe, run = self.recipe, self.run
        model = self.build(phase.image_size, start_epoch)
        checkpoint = Checkpoint(run / CHECKPOINT_FILE, phase.epochs.stop)
        is_terminal = sys.stdout.isatty()  # elsewhere, Keras's progress bar would be very long lines
        callbacks = [
            keras.callbacks.ProgbarLogger(),  # before callbacks that add figures, which it would format badly
            Pace(self.steps * recipe.batch_size, list_phases(recipe), say_figures=not is_terminal),
            keras.callbacks.CSVLogger(str(run / HISTORY_FILE), append=start_epoch > 0),
            keras.callbacks.TensorBoard(str(run / "tensorboard"), write_graph=False),
            checkpoint,  # last, so that every saved epoch is in the history
        ]
        if recipe.ema:
            callbacks.insert(0, keras.callbacks.SwapEMAWeights())  # validates with the average
        if phase.epochs.stop == recipe.epochs:  # losses on smaller images are not comparable
            callbacks.insert(0, self.best)  # before the average is swapped back
        model.fit(
            make_train_dataset(
                self.train_split, recipe, self.normalize, num_classes=self.num_classes, start_epoch=start_epoch
            ),
            validation_data=self._make_validation_dataset(phase.image_size),
            initial_epoch=start_epoch,
            epochs=recipe.epochs,
            steps_per_epoch=self.steps,
            shuffle=False,  # the dataset is shuffled
            verbose=int(is_terminal),
            callbacks=callbacks,
        )
        if checkpoint.diverged:
            raise DivergedError(f"the loss is no longer finite; lower --learning-rate (history: {run / HISTORY_FILE})")
        return model

    def _make_validation_dataset(self, image_size: int) -> tf.data.Dataset:
        """Make batches that the devices share evenly, without the last few images: Keras fails on uneven batches."""
        images, labels = self.validation_split
        replicas = self.devices.strategy.num_replicas_in_sync
        even = len(labels) // replicas * replicas
        return make_dataset(
            Split(images[:even], labels[:even]),
            self.normalize,
            num_classes=self.num_classes,
            batch_size=VALIDATION_BATCH_SIZE // replicas * replicas,
            image_size=image_size,
        )


def compile_network(
    num_classes: int, recipe: Recipe, devices: Devices, total_steps: int, image_size: int | None = None
) -> keras.Model:
    """Build MiniModel in Keras's dtype policy and compile it for a run of `total_steps` steps.

    Call it in the scope of the devices' strategy, which owns the variables.

    Returns:
        The network, (N, image_size, image_size, 3) float32 normalised images → (N, num_classes) float32 probabilities.
        The default size is the recipe's. The variables have the same shapes for every size.
    """
    size = image_size or recipe.size
    model = mini_model(
        (size, size, 3),
        num_classes,
        residual=recipe.residual,
        dropout=recipe.dropout,
        momentum=choose_momentum(total_steps, recipe.ema),
    )
    model.compile(
        make_optimizer(recipe, total_steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=devices.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)
    # Create the metrics' variables now. Created during the tracing of the training step, they would cause a second
    # tracing, which takes seconds.
    nothing = np.zeros((1, num_classes), np.float32)
    model.compute_metrics(None, nothing, nothing)
    return model


def _read_checkpoint(path: Path) -> tuple[int, list[Any]]:
    """Read the number of finished epochs, and the values of `_list_variables` that `Checkpoint` saved."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            saved = dict(arrays)
        return int(saved.pop("finished_epochs")), list(saved.values())
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise tell_damaged(path) from error


def _list_variables(model: keras.Model) -> list[keras.Variable]:
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
        values = (keras.ops.convert_to_numpy(variable) for variable in _list_variables(self.model))
        np.savez(written, *values, finished_epochs=epoch + 1)
        written.replace(self.path)
        if epoch + 1 == self.stop:
            self.model.stop_training = True


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
        if epoch < finished_epochs:  # else the run was interrupted before the checkpoint, and the epoch runs again
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


class Pace(keras.callbacks.Callback):
    """Adds images per second and the learning rate to an epoch's logs, and prints them with the remaining time.

    With `say_figures` the line also has the epoch, loss and accuracy.
    """

    def __init__(self, images_per_epoch: int, phases: Sequence[Phase], *, say_figures: bool) -> None:
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self.costs = [phase.image_size**2 for phase in phases for _ in phase.epochs]
        self.say_figures = say_figures
        self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start the clock."""
        self.started = time.perf_counter()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Stop the clock: validation is not training."""
        self.seconds = time.perf_counter() - self.started

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the figures, and print them."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        pace = self.images_per_epoch / self.seconds
        left = (time.perf_counter() - self.started) * sum(self.costs[epoch + 1 :]) / self.costs[epoch]
        wait = f"{left:.0f} seconds" if left < SHORT else f"{left / 60:.0f} minutes"
        figures = ""
        if self.say_figures and logs:
            figures = ", ".join(f"{name} {value:.4f}" for name, value in sorted(logs.items()))
            figures = f"epoch {epoch + 1}/{self.params['epochs']}: {figures}, "
        print(f"{figures}{pace:,.0f} images/s, learning rate {rate:.2g}, about {wait} left", flush=True)
        if logs is not None:
            logs |= {"learning_rate": rate, "images_per_second": round(pace, 1)}
