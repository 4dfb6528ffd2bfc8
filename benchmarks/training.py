"""Images per second of this training pipeline against the article's own code, side by side; and the time to a target.

`python -m benchmarks.training --data data` alternates between the two in rounds, so that whatever else the machine does
meets both. `--target 0.65` also trains each from scratch until that validation accuracy.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import article
from benchmarks.machine import describe_machine
from training.config import RECIPES, Recipe
from training.data import Split, load_data, split_validation
from training.devices import select_devices
from training.model import mini_model
from training.optimizer import make_optimizer
from training.pipeline import Normalization, make_dataset, make_train_dataset, measure_normalization, steps_per_epoch

ROUNDS, STEPS_PER_ROUND = 6, 10
EVALUATE_EVERY = 25  # steps, on the way to a target

Step = Callable[[], Any]


def make_ours(split: Split, recipe: Recipe, normalize: Normalization) -> tuple[keras.Model, Iterator[Any]]:
    """Build, compile and feed the network as `training.train` does."""
    devices = select_devices()
    num_classes = int(split.labels.max()) + 1
    keras.config.set_dtype_policy(devices.precision)
    model = mini_model(num_classes=num_classes, residual=recipe.residual, dropout=recipe.dropout)
    keras.config.set_dtype_policy("float32")
    model.compile(
        make_optimizer(recipe, steps_per_epoch(split, recipe) * recipe.epochs),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=devices.jit_compile,
    )
    return model, iter(make_train_dataset(split, recipe, normalize))


def time_steps(step: Step, count: int) -> list[float]:
    """Return the seconds that each of `count` steps takes."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds


def compare_speed(split: Split, recipes: dict[str, Recipe], normalize: Normalization) -> None:
    """Print images per second of the article's code and of each recipe, medians over alternating rounds."""
    steps: dict[str, Step] = {}
    num_classes = int(split.labels.max()) + 1
    model, batches = article.make_model(num_classes), article.make_batches(split, num_classes)
    steps["the article's code"] = lambda: model.train_on_batch(*next(batches))
    inputs: dict[str, Step] = {"the article's code": lambda: next(batches)}
    for name, recipe in recipes.items():
        ours, ours_batches = make_ours(split, recipe, normalize)
        steps[f"recipe {name}"] = lambda ours=ours, it=ours_batches: ours.train_on_batch(*next(it))  # type: ignore[misc]
        # single-threaded and not prefetched: what the work costs, not what hides it
        alone = iter(make_train_dataset(split, recipe, normalize).with_options(_one_thread()))
        inputs[f"recipe {name}"] = lambda it=alone: next(it)  # type: ignore[misc]
    for step in steps.values():
        time_steps(step, 3)  # tracing, first allocations
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            seconds[name] += time_steps(step, STEPS_PER_ROUND)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    slowest = medians["the article's code"]
    print("| code | images/s | times the article's | input pipeline, share of a step |\n| --- | --- | --- | --- |")
    for name, median in medians.items():
        share = float(np.median(time_steps(inputs[name], 40)[5:])) / median
        print(f"| {name} | {article.BATCH_SIZE / median:.0f} | {slowest / median:.2f} | {share:.1%} |")


def _one_thread() -> tf.data.Options:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    return options


def time_to_target(split: Split, validation: Split, recipe: Recipe, normalize: Normalization, target: float) -> None:
    """Print how many seconds of training steps each needs to reach `target` validation accuracy."""
    num_classes = int(split.labels.max()) + 1
    mean, deviation = split.images.mean() / 255, split.images.std(axis=0) / 255
    article_normalize = Normalization(np.asarray(mean, np.float32), np.asarray(deviation + 1e-7, np.float32))
    batches = article.make_batches(split, num_classes)
    ours, ours_batches = make_ours(split, recipe, normalize)
    limit = steps_per_epoch(split, recipe) * recipe.epochs - EVALUATE_EVERY
    print(f"\n| code | seconds of training to {target:.0%} of the validation images | steps |\n| --- | --- | --- |")
    for name, model, stream, statistics in (
        ("the article's code", article.make_model(num_classes), batches, article_normalize),
        ("recipe fast", ours, ours_batches, normalize),
    ):
        held_out = make_dataset(validation, statistics, num_classes=num_classes)
        seconds, steps, accuracy = 0.0, 0, 0.0
        while accuracy < target and steps < limit:
            seconds += sum(time_steps(lambda: model.train_on_batch(*next(stream)), EVALUATE_EVERY))  # noqa: B023
            steps += EVALUATE_EVERY
            accuracy = model.evaluate(held_out, verbose=0, return_dict=True)["accuracy"]
        reached = f"{seconds:.0f}" if accuracy >= target else f"not reached ({accuracy:.1%} after {seconds:.0f} s)"
        print(f"| {name} | {reached} | {steps} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--data", default="cifar10", help="as for python -m training")
    parser.add_argument("--target", type=float, help="also time both to this validation accuracy")
    options = parser.parse_args()
    data = load_data(options.data)
    split, validation = split_validation(data.train, RECIPES["fast"].validation, seed=0)
    normalize = measure_normalization(split.images, "channel")
    print(f"{describe_machine()}; {select_devices().description}, TensorFlow {tf.__version__}\n")
    compare_speed(split, RECIPES, normalize)
    if options.target is not None:
        # A schedule that ends soon: a run whose goal is near need not anneal for an hour.
        short = RECIPES["fast"].model_copy(update={"epochs": 2})
        time_to_target(split, validation, short, normalize, options.target)


if __name__ == "__main__":
    main()
