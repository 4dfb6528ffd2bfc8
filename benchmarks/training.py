"""Compares the speed of this training pipeline with that of the article's code.

`python -m benchmarks.training --data data` writes training.md into benchmarks/results. It alternates between the two in
rounds, so that other load on the machine affects both. `--target 0.65` also trains each from scratch until it reaches
that validation accuracy.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import keras
import tensorflow as tf

from benchmarks import article
from benchmarks.machine import describe_libraries, describe_machine
from training.config import OFFICIAL, RECIPES, Recipe
from training.data import Split, load_data, split_validation
from training.devices import Devices, select_devices
from training.failures import TrainingError
from training.options import Parser
from training.pipeline import Normalization, make_dataset, make_train_dataset, measure_normalization, steps_per_epoch
from training.table import draw_table
from training.train import compile_network

PROGRAM = "python -m benchmarks.training"
RESULTS = Path(__file__).parent / "results"
ROUNDS, STEPS_PER_ROUND = 6, 10
WARM_UP_STEPS = 3  # tracing, first allocations
INPUT_STEPS = 40
EVALUATE_EVERY = 25  # steps, on the way to a target
SHORT_SCHEDULE = 2  # epochs; a short run to a low target needs a short schedule
ARTICLE_LIMIT = 10  # epochs after which the article's code is stopped
SEED = 0


@dataclass(frozen=True)
class Trainer:
    """A network and its batches."""

    title: str
    model: keras.Model
    batches: Iterator[Any]
    alone: Iterator[Any]
    """The same batches, made on one thread without steps in between, to measure their whole cost."""
    normalize: Normalization
    batch_size: int
    limit: int
    """Maximum steps on the way to a target."""

    def step(self) -> None:
        """Train on the next batch."""
        self.model.train_on_batch(*next(self.batches))


def make_article(split: Split, num_classes: int) -> Trainer:
    """Make the article's network and generator."""
    images, normalize = article.normalize(split)
    batches = article.make_batches(images, split.labels, num_classes)
    limit = ARTICLE_LIMIT * -(-len(split.labels) // article.BATCH_SIZE)
    model = article.make_model(num_classes)
    return Trainer("the article's code", model, batches, batches, normalize, article.BATCH_SIZE, limit)


def make_ours(title: str, split: Split, num_classes: int, recipe: Recipe, devices: Devices) -> Trainer:
    """Make the network and batches of a recipe, like `training.train`, but with all images at full size."""
    recipe = recipe.model_copy(update={"low_resolution": 0.0})  # the article's are, and every step takes the same time
    normalize = measure_normalization(split.images, recipe.normalization)
    limit = steps_per_epoch(len(split.labels), recipe) * recipe.epochs
    keras.config.set_dtype_policy(devices.precision)
    with devices.strategy.scope():
        model = compile_network(num_classes, recipe, devices, limit)
    keras.config.set_dtype_policy("float32")  # the article's
    dataset = make_train_dataset(split, recipe, normalize, num_classes=num_classes)
    one_thread = tf.data.Options()
    one_thread.threading.private_threadpool_size = 1
    one_thread.threading.max_intra_op_parallelism = 1
    alone = iter(dataset.with_options(one_thread))
    return Trainer(title, model, iter(dataset), alone, normalize, recipe.batch_size, limit)


def compare_speed(trainers: Sequence[Trainer]) -> str:
    """Return a table of images per second, medians over alternating rounds, relative to the first trainer."""
    for trainer in trainers:
        time_steps(trainer.step, WARM_UP_STEPS)
    seconds: dict[str, list[float]] = {trainer.title: [] for trainer in trainers}
    for _, trainer in itertools.product(range(ROUNDS), trainers):
        seconds[trainer.title] += time_steps(trainer.step, STEPS_PER_ROUND)
    speeds = {trainer.title: trainer.batch_size / median(seconds[trainer.title]) for trainer in trainers}
    rows = []
    for trainer in trainers:
        speed = speeds[trainer.title]
        inputs = time_steps(lambda: next(trainer.alone), INPUT_STEPS)  # noqa: B023 - called in this iteration
        share = median(inputs) / median(seconds[trainer.title])
        rows.append([trainer.title, f"{speed:.0f}", f"{speed / speeds[trainers[0].title]:.2f}", f"{100 * share:.1f} %"])
    header = ["code", "images/s", "times the article's", "input pipeline, share of a step"]
    return draw_table(header, rows, numbers=True)


def time_steps(step: Callable[[], Any], count: int) -> list[float]:
    """Return the seconds that each of `count` steps takes."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds


def compare_time(trainers: Sequence[Trainer], validation: Split, target: float) -> str:
    """Return a table of the seconds of training steps that each trainer needs to reach `target`."""
    rows = [[trainer.title, *time_to_target(trainer, validation, target)] for trainer in trainers]
    header = ["code", f"seconds of training to {100 * target:g} % of the validation images", "steps"]
    return draw_table(header, rows, numbers=True)


def time_to_target(trainer: Trainer, validation: Split, target: float) -> tuple[str, str]:
    """Train to `target` validation accuracy or the limit; return the seconds and the steps as text."""
    num_classes = trainer.model.output_shape[-1]
    held_out = make_dataset(validation, trainer.normalize, num_classes=num_classes)
    seconds, steps, accuracy = 0.0, 0, 0.0
    while accuracy < target and steps < trainer.limit:
        count = min(EVALUATE_EVERY, trainer.limit - steps)
        seconds += sum(time_steps(trainer.step, count))
        steps += count
        accuracy = trainer.model.evaluate(held_out, verbose=0, return_dict=True)["accuracy"]
    reached = f"{seconds:.0f}"
    if accuracy < target:
        reached = f"not reached ({100 * accuracy:.1f} % after {seconds:.0f} s)"
    return reached, str(steps)


def measure(data: str, target: float | None) -> str:
    """Measure on the data set `data`; return the results in Markdown.

    Raises:
        DataError: the data set can't be loaded.
    """
    loaded = load_data(data)
    split, validation = split_validation(loaded.train, RECIPES["fast"].validation, SEED)
    devices, num_classes = select_devices(), len(loaded.class_names)
    keras.utils.set_random_seed(SEED)
    ours = [make_ours(f"recipe {name}", split, num_classes, recipe, devices) for name, recipe in RECIPES.items()]
    speed = compare_speed([make_article(split, num_classes), *ours])
    flags = "" if data == OFFICIAL else " --data DIR"  # leaves out the local path
    flags += "" if target is None else f" --target {target:g}"
    gpus = f", {devices.description}" if tf.config.list_physical_devices("GPU") else ""
    text = (
        f"# Training\n\n`{PROGRAM}{flags}`: training steps in turn, medians of"
        f" {ROUNDS} rounds of {STEPS_PER_ROUND} steps.\n\n- Machine: {describe_machine()}{gpus}; the recipes in"
        f" {devices.precision}, the article's code in float32.\n"
        f"- Libraries: {describe_libraries('keras', 'tensorflow')}.\n\n{speed}"
    )
    if target is not None:
        keras.utils.set_random_seed(SEED)
        short = RECIPES["fast"].model_copy(update={"epochs": SHORT_SCHEDULE})
        title = f"recipe fast on a schedule of {SHORT_SCHEDULE} epochs"
        trainers = [make_article(split, num_classes), make_ours(title, split, num_classes, short, devices)]
        text += (
            f"\nFrom scratch, seed {SEED}, one run each, evaluated every {EVALUATE_EVERY} steps; the article's code"
            f" stops after {ARTICLE_LIMIT} epochs.\n\n{compare_time(trainers, validation, target)}"
        )
    return text


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; print and write the tables; return the exit status."""
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--data", default=OFFICIAL, help="as for python -m training")
    parser.add_argument("--target", type=_share, help="also train both to this validation accuracy, between 0 and 1")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        text = measure(options.data, options.target)
    except TrainingError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "training.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
