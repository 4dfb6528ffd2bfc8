"""Changes of the recipe `fast`, each trained for the same short budget and measured on the validation images only.

`python -m benchmarks.recipes --data data [NAME …]` trains the named changes (default: all) and writes recipes.md into
benchmarks/results from every finished run in the folder `--runs`. So the table can grow over several sessions, and over
several machines if the folder is copied. A model card can include the file (`--notes`).
"""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.contract import TrainingRun
from app.runtime.load import Images
from training.config import OFFICIAL, RECIPES, Recipe
from training.data import Split, describe_content, load_data, split_validation
from training.devices import select_devices
from training.export import predict_logits, read_commit
from training.failures import ResumeError, TrainingError
from training.options import Parser
from training.pipeline import measure_normalization
from training.report import percent, sum_minutes
from training.robustness import encode_jpeg, shrink
from training.run import CHECKPOINT_FILE, read_history, read_start, require_resumable
from training.table import draw_table
from training.train import train

PROGRAM = "python -m benchmarks.recipes"
EPOCHS = 8
RUNS = Path("runs/recipes")
FIGURES_FILE = "figures.json"
RESULTS = Path(__file__).parent / "results"

CHANGES: dict[str, dict[str, Any]] = {
    "fast": {},
    "hardier": {"scale_share": 0.5, "aspect": 0.25, "jpeg": 0.4},
    "softer": {"scale": 0.3, "aspect": 0.0, "plain": 0.0, "jpeg": 0.0},
    "cutout": {"cutout": 8},
    "random-flip": {"alternating_flip": False},
    "full-resolution": {"low_resolution": 0.0},
    "no-average": {"ema": 0.0},
    "half-rate": {"learning_rate": 0.0015},
    "double-rate": {"learning_rate": 0.006},
    "double-decay": {"weight_decay": 0.2},
    "dropout": {"dropout": 0.25},
    "no-smoothing": {"label_smoothing": 0.0},
    "no-shortcuts": {"residual": False},
    # the best values of a prototype with SGD
    "sgd": {"optimizer": "sgd", "learning_rate": 0.15, "weight_decay": 0.005, "warmup": 0.2},
    # the article's rate
    "adam": {"optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.0},
}
BASE = "fast"

FIGURES: dict[str, Callable[[Images], Images]] = {
    "as they are": lambda images: images,
    "as JPEG, quality 75": lambda images: encode_jpeg(images, 75),
    "at 0.7 × on a plain border": lambda images: shrink(images, 0.7),
}
"""Variants of the validation images; each network's accuracy is measured on all of them."""

HEADER = """## What was compared

The recipe `{base}` and changes of it, for {epochs} epochs each. There is one run of each, with seed {seed}, so
differences below a point mean little. Accuracy is on the {validation:,} validation images. Minutes are those of
the training steps. Printed by
`{command}`.{not_run}

"""


class Splits(NamedTuple):
    """The data that every change is trained and measured on."""

    train: Split
    validation: Split


def change_recipe(name: str, epochs: int) -> Recipe:
    """Return the recipe of a change, for a budget of `epochs`."""
    return RECIPES[BASE].model_copy(update={"epochs": epochs, **CHANGES[name]})


def name_run(runs: Path, name: str, epochs: int) -> Path:
    """Return the folder of a change's run for a budget of `epochs`."""
    return runs / f"{name}-{epochs}-epochs"


def train_change(name: str, epochs: int, splits: Splits, runs: Path, command: str) -> None:
    """Train one change, or continue its run; `command` is the command line to record.

    Raises:
        ResumeError: its run was started by another recipe, on other data or in another precision.
    """
    images, labels = splits.validation
    recipe, run, devices = change_recipe(name, epochs), name_run(runs, name, epochs), select_devices()
    normalize = measure_normalization(splits.train.images, recipe.normalization)
    start = TrainingRun(
        recipe=BASE,
        command=command,
        commit=read_commit(),
        hardware=devices.description,
        precision=devices.precision,
    )
    resume = (run / CHECKPOINT_FILE).exists()
    network = train(splits.train, splits.validation, recipe, normalize, devices, run, start, resume=resume)
    figures = {
        figure: float((predict_logits(network, normalize, change(images)).argmax(axis=1) == labels).mean())
        for figure, change in FIGURES.items()
    }
    (run / FIGURES_FILE).write_text(json.dumps(figures, indent=2), encoding="utf-8")


def draw_results(epochs: int, splits: Splits, runs: Path, source: str) -> str:
    """Return the table of all finished runs for a budget of `epochs` with these recipes, on the data of `source`."""
    content = describe_content(*splits)
    rows = []
    for name, values in CHANGES.items():
        run, recipe = name_run(runs, name, epochs), change_recipe(name, epochs)
        try:
            require_resumable(run, recipe, content)
        except ResumeError:
            continue  # not trained, or with other values than in the table
        if not (run / FIGURES_FILE).exists():
            continue  # not finished
        shown = ", ".join(f"`{field}` = {value!r}" for field, value in values.items()) or "as it is"
        figures = json.loads((run / FIGURES_FILE).read_text(encoding="utf-8"))
        accuracies = [percent(figures[figure], digits=1) for figure in FIGURES]
        minutes = f"{sum_minutes(read_history(run), len(splits.train.labels), recipe):.1f}"
        start = read_start(run)
        rows.append([name, shown, *accuracies, minutes, f"{start.hardware}, {start.precision}"])
    names = [row[0] for row in rows]
    not_run = ", ".join(name for name in CHANGES if name not in names)
    data = [] if source == OFFICIAL else ["--data DIR"]  # leaves out the local path
    header = HEADER.format(
        command=" ".join([PROGRAM, *names, *data, f"--epochs {epochs}"]),
        not_run=f"\nNot run: {not_run}." if not_run else "",
        base=BASE,
        epochs=epochs,
        validation=len(splits.validation.labels),
        seed=RECIPES[BASE].seed,
    )
    return header + draw_table(("change", "values", *FIGURES, "minutes", "on"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, then write and print the table; status 2 with one line for an error that the user can fix."""
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("changes", nargs="*", metavar="NAME", help=f"one of {', '.join(CHANGES)}")
    parser.add_argument("--data", default=OFFICIAL, help="as for python -m training")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="budget of every change (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args(arguments)
    if unknown := set(options.changes) - CHANGES.keys():
        parser.error(f"no such change: {', '.join(sorted(unknown))}")
    if options.epochs < 1:
        parser.error(f"argument --epochs: {options.epochs} is less than 1")
    command = shlex.join([*PROGRAM.split(), *(sys.argv[1:] if arguments is None else arguments)])
    base = RECIPES[BASE]
    try:
        splits = Splits(*split_validation(load_data(options.data).train, base.validation, base.seed))
        for name in options.changes or CHANGES:
            print(f"{name}: {CHANGES[name] or 'as it is'}", flush=True)
            train_change(name, options.epochs, splits, options.runs, command)
    except TrainingError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    table = draw_results(options.epochs, splits, options.runs, options.data)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "recipes.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
