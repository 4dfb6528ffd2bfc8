"""Fits the network: compiles it, and runs the phases from the start or from a checkpoint."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.contract import TrainingRun
from training.best_epoch import BestEpoch
from training.checkpoint import Checkpoint, list_variables, read_checkpoint
from training.config import Recipe
from training.data import Split, describe_content
from training.devices import Devices
from training.failures import DeviceError, DivergedError
from training.layers import choose_momentum
from training.network import mini_model
from training.optimizer import make_optimizer
from training.pace import Pace
from training.pipeline import Normalization, Phase, list_phases, make_dataset, make_train_dataset, steps_per_epoch
from training.run import BEST_FILE, CHECKPOINT_FILE, HISTORY_FILE, require_resumable, start_run, trim_history

VALIDATION_BATCH_SIZE = 256


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

    `start` is saved there. With `resume`, training continues after the last finished epoch in `run`; the result is the
    same as without the interruption, up to rounding. `weights` are the initial weights; by default they are random.

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
        start_epoch = read_checkpoint(run / CHECKPOINT_FILE)[0]
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
    else:  # a run of older code, which kept no best epoch
        model.optimizer.finalize_variable_values(
            model.trainable_weights
        )  # to their moving average, if the recipe has one
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
    best: BestEpoch

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
                _, saved = read_checkpoint(self.run / CHECKPOINT_FILE)
                for variable, value in zip(list_variables(model), saved, strict=True):
                    variable.assign(value)
        return model

    def fit_phase(self, phase: Phase, start_epoch: int) -> keras.Model:
        """Fit from `start_epoch`, which the checkpoint precedes, to the end of the phase."""
        recipe, run = self.recipe, self.run
        model = self.build(phase.image_size, start_epoch)
        checkpoint = Checkpoint(run / CHECKPOINT_FILE, phase.epochs.stop)
        is_terminal = sys.stdout.isatty()  # elsewhere, Keras's progress bar would be very long lines
        callbacks = [
            keras.callbacks.ProgbarLogger(),  # before callbacks that add figures, which it would format poorly
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
        The network, (N, image_size, image_size, 3) float32 normalized images → (N, num_classes) float32 probabilities.
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
