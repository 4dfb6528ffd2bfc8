"""A run's folder: which one is meant, and what it was started with, so that it ends as it began.

From the start it holds recipe.json, data.json and start.json, from the first epoch on checkpoint.npz, history.csv and
TensorBoard's logs. It imports no TensorFlow: a run that can't be resumed is refused at once.
"""

import csv
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.contract import TrainingRun
from training.config import Recipe
from training.errors import FolderError, ResumeError
from training.options import NEWEST, Options

CHECKPOINT_FILE = "checkpoint.npz"
HISTORY_FILE = "history.csv"
RECIPE_FILE = "recipe.json"
DATA_FILE = "data.json"
START_FILE = "start.json"
STARTED = f"{'[0-9]' * 8}-{'[0-9]' * 6}"
"""When a run was started, as its folder's name ends: a pattern for it."""


def find_run(options: Options) -> Path:
    """Make the folder of a new run, or find the one to resume.

    Raises:
        FolderError: the new one can't be made.
        ResumeError: there is none to resume, or not by this recipe.
    """
    names = f"{options.name}-{options.recipe_name}"
    if options.resume is None:
        require_writable(options.runs)
        return _make_run(options.runs / names, datetime.datetime.now(datetime.UTC))
    run = Path(options.resume)
    if options.resume == NEWEST:
        # Exactly so long a name: a model called a-fast has runs that begin with a-fast-, too.
        runs = [run for run in options.runs.glob(f"{names}-{STARTED}") if (run / CHECKPOINT_FILE).is_file()]
        if not runs:
            raise ResumeError(
                f"nothing to resume: no run of {options.name} by {options.recipe_name} in {options.runs} "
                "has a finished epoch"
            )
        run = max(runs)
    require_resumable(run, options.recipe)
    return run


def _make_run(path: Path, started: datetime.datetime) -> Path:
    """Make a folder that is this run's alone: of two runs that are started in one second, one gets the next."""
    while True:
        run = path.with_name(f"{path.name}-{started:%Y%m%d-%H%M%S}")
        try:
            run.mkdir()
        except FileExistsError:
            started += datetime.timedelta(seconds=1)
        else:
            return run


def require_writable(folder: Path) -> None:
    """Make `folder` unless it is there, and see that files can be made in it: now, not after hours of training.

    Raises:
        FolderError: with the system's reason.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise FolderError(f"can't write into {str(folder)!a}: TensorFlow takes no path that is not in UTF-8") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderError(f"can't write into {folder}: {error.strerror}") from error


def start_run(run: Path, recipe: Recipe, data: dict[str, Any], start: TrainingRun) -> None:
    """Make the folder and note what the run is started with; `data` tells its data set from others."""
    run.mkdir(parents=True, exist_ok=True)
    (run / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2), encoding="utf-8")
    (run / DATA_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")
    (run / START_FILE).write_text(start.model_dump_json(indent=2), encoding="utf-8")


def read_start(run: Path) -> TrainingRun:
    """Read how the run in the folder `run` was started.

    Raises:
        ResumeError: the file that says so is damaged.
    """
    try:
        return TrainingRun.model_validate_json((run / START_FILE).read_bytes())
    except ValidationError as error:
        raise tell_damaged(run / START_FILE) from error


def read_history(run: Path) -> list[dict[str, float]]:
    """Read the history of the run in the folder `run`: one record a finished epoch.

    Raises:
        ResumeError: it is damaged.
    """
    try:
        with (run / HISTORY_FILE).open(encoding="utf-8", newline="") as file:
            epochs = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, csv.Error) as error:
        raise tell_damaged(run / HISTORY_FILE) from error
    if [epoch.get("epoch") for epoch in epochs] != list(range(len(epochs))):
        raise tell_damaged(run / HISTORY_FILE)
    return epochs


def require_resumable(
    run: Path, recipe: Recipe, data: dict[str, Any] | None = None, precision: str | None = None
) -> None:
    """Refuse a run that has no finished epoch, or was started by another recipe, on other data or in another precision.

    Data and precision are left out where they are not known yet.

    Raises:
        ResumeError: with what is missing or damaged, or with each value that differs.
    """
    if not run.is_dir():
        raise ResumeError(f"nothing to resume: {run} is no folder")
    for file in (RECIPE_FILE, DATA_FILE, START_FILE, CHECKPOINT_FILE, HISTORY_FILE):
        if not (run / file).is_file():
            raise ResumeError(f"nothing to resume: {run / file} does not exist")
    read_start(run)
    now, defaults = recipe.model_dump(mode="json"), Recipe().model_dump(mode="json")
    _require_same(run, RECIPE_FILE, "by another recipe", now, defaults)
    if data is not None:
        _require_same(run, DATA_FILE, "on other data", data)
    if precision is not None:
        _require_same(run, START_FILE, "in another precision", {"precision": precision})


def _require_same(
    run: Path, file: str, difference: str, now: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Refuse where a value in `file` is not that of `now`; one that is not there is that of `defaults`."""
    try:
        before = (defaults or {}) | dict(json.loads((run / file).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:  # no JSON, or no object
        raise tell_damaged(run / file) from error
    changed = [
        f"{name} was {before.get(name)}, now {value}" for name, value in now.items() if before.get(name) != value
    ]
    if changed:
        raise ResumeError(f"{run} was started {difference}: {', '.join(changed)}")


def tell_damaged(path: Path) -> ResumeError:
    """Return the error for a file of a run that can't be what was written."""
    return ResumeError(f"nothing to resume: {path} is damaged")


def trim_history(run: Path, epochs: int) -> None:
    """Leave the rows of the first `epochs` epochs: a later one was logged but not checkpointed, and comes again.

    Raises:
        ResumeError: one of them is missing or damaged.
    """
    with (run / HISTORY_FILE).open("a+b") as file:
        file.seek(0)
        file.truncate(sum(len(line) for line, _ in zip(file, range(1 + epochs), strict=False)))  # 1: the header
    if len(read_history(run)) != epochs:
        raise tell_damaged(run / HISTORY_FILE)
