"""Changes of the fast recipe, each trained for the same short budget and judged by the validation images alone.

`python -m benchmarks.recipes --data data [NAME …]` trains the named changes (all, if none is named) and writes
benchmarks/results/recipes.md from every run there is, so that the table can grow over several sittings. The model card
ends with it (`--notes`).
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from training.config import RECIPES
from training.data import load_data, split_validation
from training.devices import select_devices
from training.pipeline import measure_normalization
from training.report import read_history
from training.run import CHECKPOINT_FILE, HISTORY_FILE
from training.train import train

EPOCHS = 3
RUNS = Path("runs/recipes")
RESULTS = Path(__file__).parent / "results" / "recipes.md"

CHANGES: dict[str, dict[str, Any]] = {
    "fast": {},
    "plain": {"residual": False},
    "without-jitter": {"scale": 0.0, "color": 0.0, "gray": 0.0},
    "half-rate": {"learning_rate": 0.0015},
    "double-rate": {"learning_rate": 0.006},
    "less-decay": {"weight_decay": 0.02},
    "dropout": {"dropout": 0.25},
    "batch-256": {"batch_size": 256},
    "no-smoothing": {"label_smoothing": 0.0},
    # the best values of a prototype with this optimizer
    "sgd": {"optimizer": "sgd", "learning_rate": 0.15, "weight_decay": 0.005, "warmup": 0.2},
    # the article's rate
    "adam": {"optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.0},
}

HEADER = """## What was compared

The recipe `fast` for {epochs} epochs, and changes of it for the same {epochs}; seed 0, one run each, so differences
under a percent mean little. Accuracy is that of the {validation:,} validation images. `plain` is the network without
shortcuts. {machine}.

| change | values | validation accuracy | minutes of training steps |
| --- | --- | --- | --- |
"""


def main() -> None:
    """Train what is asked for, then write and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("changes", nargs="*", metavar="NAME", help=f"of {', '.join(CHANGES)}")
    parser.add_argument("--data", default="cifar10", help="as for python -m training")
    options = parser.parse_args()
    if unknown := set(options.changes) - CHANGES.keys():
        parser.error(f"no such change: {', '.join(sorted(unknown))}")
    fast = RECIPES["fast"].model_copy(update={"epochs": EPOCHS})
    data = load_data(options.data)
    split, validation = split_validation(data.train, fast.validation, fast.seed)
    normalize = measure_normalization(split.images, fast.normalization)
    for name in options.changes or CHANGES:
        print(f"{name}: {CHANGES[name] or 'as it is'}", flush=True)
        recipe = fast.model_copy(update=CHANGES[name])
        resume = (RUNS / name / CHECKPOINT_FILE).exists()
        train(split, validation, recipe, normalize, select_devices(), RUNS / name, resume=resume)
    table = HEADER.format(epochs=EPOCHS, validation=len(validation.labels), machine=describe_machine())
    for name, values in CHANGES.items():
        history = RUNS / name / HISTORY_FILE
        epochs = read_history(history) if history.exists() else []
        if len(epochs) == EPOCHS:
            minutes = sum(len(split.labels) / epoch["images_per_second"] for epoch in epochs) / 60
            shown = ", ".join(f"`{field}` = {value!r}" for field, value in values.items()) or "as it is"
            table += f"| {name} | {shown} | {epochs[-1]['val_accuracy']:.1%} | {minutes:.1f} |\n"
    RESULTS.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
