"""Measures accuracy with a few images per class, starting from an exported version and from random weights.

`python -m benchmarks.own_classes FOLDER …` reads image folders, draws some images of each class, and cross-validates
changes of the recipe `finetune` on them. One more data set is generated. It writes own-classes.md into
benchmarks/results from all cells in the folder `--runs` of these data sets and counts, so the table can grow over
several sessions; `--changes` without a name measures nothing more.
"""

import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.special import softmax

from training.calibration import Floats, Labels, fit_calibration, measure_calibration_error
from training.config import IMAGE_SIZE, RECIPES, Recipe
from training.data import Split, load_data
from training.devices import Devices, select_devices
from training.failures import TrainingError
from training.finetune import Start, Weights, fit_normalization, load_start, make_initial_weights
from training.folds import Folds, cross_validate
from training.numbering import find_newest
from training.options import START_MODELS, Parser
from training.pipeline import measure_normalization
from training.report import percent
from training.table import draw_table
from training.train import compile_network

if TYPE_CHECKING:  # imported after `training`, which sets TensorFlow's log level
    import keras
    import tensorflow as tf

PROGRAM = "python -m benchmarks.own_classes"
FOLDS = 3
COUNTS = (20, 60)
RUNS = Path("runs/own-classes")
RESULTS = Path(__file__).parent / "results"
GENERATED = "generated shapes"
DRAWN = 200
SHAPES = ("dots", "rings", "stripes", "checks")
RANDOM_WEIGHTS = "scratch"
RANDOM_HEAD = "random-head"
SLOW_BODY = "slow-body"
BODY_RATE = 1 / 3

CHANGES: dict[str, dict[str, Any]] = {
    "finetune": {},
    RANDOM_WEIGHTS: {},  # the same recipe
    "epochs-16": {"epochs": 16},
    "half-rate": {"learning_rate": 0.001},
    "double-rate": {"learning_rate": 0.004},
    "batch-32": {"batch_size": 32},
    "less-augmentation": {"scale": 0.0, "color": 0.0, "gray": 0.0},
    "smoothing": {"label_smoothing": 0.1},
    "averaged": {"ema": 0.95},
    RANDOM_HEAD: {},
    SLOW_BODY: {},
    "size-48": {"size": 48},
    "size-64": {"size": 64},
}
OTHER_CHANGES = {
    RANDOM_HEAD: "the new head starts at random, not as a logistic regression on the frozen features",
    SLOW_BODY: "all layers but the head learn at a third of the rate",
}
"""Changes that are not hyperparameters."""

HEADER = """# Your own classes: accuracy by the number of images

The recipe `finetune`, starting from {start} and from random weights (`scratch`), both for {epochs} epochs. Accuracy
is by cross-validation in {folds} folds on all images of a row, so each network was fitted to two thirds of them.
Printed by `python -m benchmarks.own_classes`.

"""
CALIBRATION = """
## Confidence

Mean confidence and expected calibration error of `finetune`, without and with a temperature. The
temperature for each tenth of the answers was fitted on the others.

"""
CHANGED = """
## Changes of the recipe

Accuracy on each data set, by its number of images per class, and the mean difference from `finetune` in points. There
is one run of each, so differences of a point or two mean little.

"""
ACCURACY_COLUMNS = (
    "data", "images per class", "images", "largest class", RANDOM_WEIGHTS, "finetune", "95 % interval", "gain"
)  # fmt: skip
CALIBRATION_COLUMNS = (
    "data", "images per class", "accuracy", "confidence", "error", "confidence, temperature", "error, temperature"
)  # fmt: skip


_percent = partial(percent, digits=1)


class DataSet(NamedTuple):
    """Images of some classes."""

    name: str
    class_names: tuple[str, ...]
    split: Split


Load = Callable[[int], DataSet]
"""Returns a data set with images of a size."""


class Cell(NamedTuple):
    """The result of one change on one data set, with one number of images per class."""

    folds: Folds
    seconds: float


def draw_shapes(count: int, image_size: int = IMAGE_SIZE) -> DataSet:
    """Draw `count` images of each of a few patterns, in random colours."""
    images = [
        _draw_shape(name, np.random.default_rng([label, index]), image_size)
        for label, name in enumerate(SHAPES)
        for index in range(count)
    ]
    return DataSet(GENERATED, SHAPES, Split(np.stack(images), np.repeat(np.arange(len(SHAPES)), count)))


def _draw_shape(name: str, random: np.random.Generator, image_size: int) -> npt.NDArray[np.uint8]:
    size, step = 64, int(random.integers(10, 22))
    paper, ink = (tuple(int(level) for level in random.integers(0, 256, 3)) for _ in range(2))
    image = Image.new("RGB", (size, size), paper)
    draw = ImageDraw.Draw(image)
    left, top = (int(random.integers(-step, 1)) for _ in range(2))
    for row, y in enumerate(range(top, size, step)):
        for column, x in enumerate(range(left, size, step)):
            box = (x, y, x + 0.6 * step, y + 0.6 * step)
            match name:
                case "dots":
                    draw.ellipse(box, fill=ink)
                case "rings":
                    draw.ellipse(box, outline=ink, width=2)
                case "stripes":
                    draw.line((x, 0, x, size), fill=ink, width=step // 3)
                case _ if (row + column) % 2:
                    draw.rectangle((x, y, x + step, y + step), fill=ink)
    small = np.asarray(image.resize((image_size, image_size), Image.Resampling.LANCZOS), np.int64)
    return (small + random.integers(-12, 13, small.shape)).clip(0, 255).astype(np.uint8)


def read_data_set(folder: Path, size: int = IMAGE_SIZE) -> DataSet:
    """Read all images of an image folder, whatever its splits.

    Raises:
        DataError: the folder is not an image folder.
    """
    data = load_data(str(folder), size=size, skip_damaged=True)
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    images, labels = (np.concatenate(parts) for parts in zip(*splits, strict=True))
    return DataSet(data.name, data.class_names, Split(images, labels))


def draw_images(data: DataSet, count: int) -> Split:
    """Draw up to `count` images of each class, the same ones every time."""
    random = np.random.default_rng(count)
    labels = data.split.labels
    drawn = [random.permutation(np.flatnonzero(labels == label))[:count] for label in range(len(data.class_names))]
    chosen = np.sort(np.concatenate(drawn))
    return Split(data.split.images[chosen], labels[chosen])


def measure(data: DataSet, count: int, change: str, start: Start) -> Cell:
    """Cross-validate a change of the recipe on `count` images of each class."""
    recipe, split = change_recipe(change), draw_images(data, count)
    started = time.monotonic()
    if change == RANDOM_WEIGHTS:
        normalize, initialize = measure_normalization(split.images, recipe.normalization), None
    else:
        normalize = fit_normalization(start.normalize, recipe.size)
        make = make_random_head if change == RANDOM_HEAD else make_initial_weights
        start = start._replace(normalize=normalize)
        initialize = partial(make, start, recipe=recipe, class_names=data.class_names)
    build = compile_slow_body if change == SLOW_BODY else compile_network
    folds = cross_validate(split, FOLDS, recipe, normalize, select_devices(), initialize, build=build)
    return Cell(folds, time.monotonic() - started)


def change_recipe(change: str) -> Recipe:
    """Return the recipe of a change."""
    return RECIPES["finetune"].model_copy(update=CHANGES[change])


def make_random_head(start: Start, split: Split, recipe: Recipe, class_names: Sequence[str]) -> Weights:
    """Return the initial weights of a network whose head is random."""
    weights = make_initial_weights(start, split, recipe, class_names)
    limit = np.sqrt(6 / sum(weights[-2].shape))  # as Keras (Glorot)
    kernel = np.random.default_rng(recipe.seed).uniform(-limit, limit, weights[-2].shape)
    return [*weights[:-2], kernel.astype(np.float32), np.zeros_like(weights[-1])]


def compile_slow_body(
    num_classes: int, recipe: Recipe, devices: Devices, total_steps: int, image_size: int | None = None
) -> "keras.Model":
    """Compile a network whose layers learn slowly, except the head."""
    model = compile_network(num_classes, recipe, devices, total_steps, image_size)
    update = model.optimizer.update_step

    def update_slowly(gradient: "tf.Tensor", variable: "tf.Variable", learning_rate: "tf.Tensor") -> None:
        update(gradient, variable, learning_rate * (1.0 if variable.name.startswith("head/") else BODY_RATE))

    model.optimizer.update_step = update_slowly
    return model


class Row(NamedTuple):
    """A line of the table: one data set, with one number of images per class."""

    load: Load
    per_class: int

    @property
    def data(self) -> DataSet:
        """The data set at the usual size."""
        return self.load(IMAGE_SIZE)

    def save(self, runs: Path, change: str, start: str, folds: Folds) -> None:
        """Write the answers of a change, with what they depend on."""
        np.savez(self._name_cell(runs, change), **folds._asdict(), made_with=_describe_cell(change, start))

    def read(self, runs: Path, change: str, start: str) -> Folds | None:
        """Read the answers of a change, if they are of these images, of today's recipe and of this start."""
        try:
            with np.load(self._name_cell(runs, change)) as saved:
                folds = Folds(saved["logits"], saved["labels"], int(saved["folds"]))
                made_with = str(saved["made_with"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # missing, of older code, or half written
            return None
        drawn = draw_images(self.data, self.per_class).labels
        is_current = made_with == _describe_cell(change, start) and np.array_equal(folds.labels, drawn)
        return folds if is_current else None

    def _name_cell(self, runs: Path, change: str) -> Path:
        return runs / f"{self.data.name.replace(' ', '-')}-{self.per_class}-{change}.npz"


def _describe_cell(change: str, start: str) -> str:
    return f"{'' if change == RANDOM_WEIGHTS else start} {change_recipe(change).model_dump_json()}"


def draw_results(rows: Sequence[Row], runs: Path, start: str) -> str:
    """Return the tables of all cells that were measured."""
    accuracies, calibrations, changes = [], [], []
    for row in rows:
        cells = {change: folds for change in CHANGES if (folds := row.read(runs, change, start))}
        if not {"finetune", RANDOM_WEIGHTS} <= cells.keys():
            continue
        tuned, scratch = cells["finetune"], cells[RANDOM_WEIGHTS]
        names = ", ".join(row.data.class_names)
        low, high = tuned.interval
        accuracies.append(
            [
                f"{row.data.name} ({names})",
                str(row.per_class),
                str(len(tuned.labels)),
                _percent(np.bincount(tuned.labels).max() / len(tuned.labels)),
                _percent(scratch.accuracy),
                _percent(tuned.accuracy),
                f"{_percent(low)} to {_percent(high)}",
                f"{100 * (tuned.accuracy - scratch.accuracy):+.1f}",
            ]
        )
        plain, calibrated = measure_calibration(tuned)
        calibrations.append([row.data.name, str(row.per_class), *map(_percent, (tuned.accuracy, *plain, *calibrated))])
        changes.append((row, cells))
    return "".join(
        [
            HEADER.format(start=start, folds=FOLDS, epochs=change_recipe("finetune").epochs),
            draw_table(ACCURACY_COLUMNS, accuracies, numbers=True),
            _summarize_gains(changes),
            CALIBRATION,
            draw_table(CALIBRATION_COLUMNS, calibrations, numbers=True),
            _summarize_calibration([cells["finetune"] for _, cells in changes]),
            _draw_changes(changes),
        ]
    )


def measure_calibration(folds: Folds) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return mean confidence and calibration error without a temperature, and with one fitted on other images.

    The temperature for each tenth of the images is fitted on the others, almost as many as for an exported version.
    """
    tenth = np.random.default_rng(0).permutation(len(folds.labels)) % 10
    plain = fit_nothing(folds.logits)
    served = np.empty_like(plain)
    for judged in (tenth == number for number in np.unique(tenth)):
        calibrate = fit_calibration(folds.logits[~judged], folds.labels[~judged], 0.0)
        served[judged] = calibrate(folds.logits[judged])
    return _judge(plain, folds.labels), _judge(served, folds.labels)


def fit_nothing(logits: Floats) -> Floats:
    """Return the probabilities (N, classes) that the network itself gives."""
    probabilities: Floats = softmax(logits, axis=1)
    return probabilities


def _judge(probabilities: Floats, labels: Labels) -> tuple[float, float]:
    return float(probabilities.max(axis=1).mean()), measure_calibration_error(probabilities, labels)


def _summarize_gains(measured: Sequence[tuple[Row, dict[str, Folds]]]) -> str:
    gains = [100 * (cells["finetune"].accuracy - cells[RANDOM_WEIGHTS].accuracy) for _, cells in measured]
    return f"\nMean gain: {np.mean(gains):+.1f} points; smallest: {min(gains):+.1f}.\n" if gains else ""


def _summarize_calibration(measured: Sequence[Folds]) -> str:
    if not measured:
        return ""
    figures = np.array(
        [measure_calibration(folds) for folds in measured]
    )  # (N, without and with, confidence and error)
    off = np.abs(figures[:, :, 0] - np.array([[folds.accuracy] for folds in measured])).mean(axis=0)
    error = figures[:, :, 1].mean(axis=0)
    return (
        f"\nThe mean calibration error is {_percent(error[0])} without a temperature and {_percent(error[1])} with it. "
        f"Confidence differs from accuracy by {100 * off[0]:.1f} and {100 * off[1]:.1f} points.\n"
    )


def _draw_changes(measured: Sequence[tuple[Row, dict[str, Folds]]]) -> str:
    """Return the table of changes, with a column for each data set that one was measured on; empty without any."""
    changed = [(row, cells) for row, cells in measured if cells.keys() - {"finetune", RANDOM_WEIGHTS}]
    lines = []
    for change, values in CHANGES.items():
        gains = [100 * (cells[change].accuracy - cells["finetune"].accuracy) for _, cells in changed if change in cells]
        if change == RANDOM_WEIGHTS or not gains:
            continue
        shown = OTHER_CHANGES.get(change) or ", ".join(f"`{field}` = {value!r}" for field, value in values.items())
        accuracies = [_percent(cells[change].accuracy) if change in cells else "–" for _, cells in changed]
        mean = "" if change == "finetune" else f"{np.mean(gains):+.1f}"
        lines.append([change, shown or "as it is", *accuracies, mean])
    names = [f"{row.data.name}, {row.per_class}" for row, _ in changed]
    return CHANGED + draw_table(("change", "values", *names, "mean difference"), lines) if lines else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, then write and print the tables; status 2 with one line for an error that the user can fix."""
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="image folders")
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help="images of each class (default: 20 60)")
    parser.add_argument("--changes", nargs="*", choices=CHANGES, default=("finetune", RANDOM_WEIGHTS), metavar="NAME")
    parser.add_argument("--from", dest="start", type=Path, default=find_newest(START_MODELS), metavar="VERSION")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the cells (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args(arguments)
    options.runs.mkdir(parents=True, exist_ok=True)
    try:
        start = load_start(options.start)
        # Always as many, so that a count gets the same ones whatever the other counts are.
        drawn = partial(draw_shapes, DRAWN)
        loads = [cache(load) for load in (drawn, *(partial(read_data_set, folder) for folder in options.folders))]
        rows = [Row(load, count) for count in sorted(options.counts) for load in loads]
        for row in rows:
            for change in options.changes:
                if row.read(options.runs, change, start.name) is None:
                    data = row.load(change_recipe(change).size)
                    cell = measure(data, row.per_class, change, start)
                    row.save(options.runs, change, start.name, cell.folds)
                    line = f"{row.data.name}, {row.per_class} per class, {change}: {_percent(cell.folds.accuracy)}"
                    print(f"{line}, {cell.seconds:.0f} s", flush=True)
    except TrainingError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    table = draw_results(rows, options.runs, start.name)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "own-classes.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
