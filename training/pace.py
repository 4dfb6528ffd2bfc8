"""Measures the speed of training, and prints it with the remaining time."""

import time
from collections.abc import Sequence
from typing import Any

import keras

from training.pipeline import Phase

SHORT = 120  # seconds; longer times are printed in minutes


class Pace(keras.callbacks.Callback):
    """Adds images per second and the learning rate to an epoch's logs, and prints them with the remaining time.

    With `say_figures`, the line also has the epoch, loss and accuracy.
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
