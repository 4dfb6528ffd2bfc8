"""Finds the folder of a run, and records its options for resuming it.

The folder contains job.json, recipe.json, data.json and start.json, and after the first epoch checkpoint.npz, best.npz,
history.csv and TensorBoard's logs. This module imports no TensorFlow, so it can reject a run at once.
"""

import csv
import datetime
import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from app.contract import TrainingRun
from training.config import OFFICIAL, Options, Recipe
from training.failures import FolderError, ResumeError

NEWEST = "newest"
JOB_FILE = "job.json"
CHECKPOINT_FILE = "checkpoint.npz"
BEST_FILE = "best.npz"
HISTORY_FILE = "history.csv"
RECIPE_FILE = "recipe.json"
DATA_FILE = "data.json"
START_FILE = "start.json"
STARTED = f"{'[0-9]' * 8}-{'[0-9]' * 6}"
"""A pattern for the start time at the end of a folder's name."""


def find_run(options: Options) -> Path:
    """Make the folder of a new run, or check the one to resume.

    Raises:
        FolderError: the new one can't be made.
        ResumeError: there is none to resume, or its recipe differs.
    """
    if options.resume is None:
        require_writable(options.runs)
        return _make_run(options.runs / f"{options.name}-{options.recipe_name}", datetime.datetime.now(datetime.UTC))
    if options.resume == NEWEST:
        raise ResumeError(f"nothing to resume: no run of {options.name} in {options.runs} has a finished epoch")
    require_resumable(Path(options.resume), options.recipe)
    return Path(options.resume)


def find_newest_run(runs: Path, name: str, recipe: str | None = None) -> Path | None:
    """Return the newest run of the model `name` in `runs` with a finished epoch, and with the recipe if it is given."""
    found = []
    for run in runs.glob(f"{name}-*-{STARTED}"):
        job = read_job(run)
        if (run / CHECKPOINT_FILE).is_file() and job.get("name") == name and recipe in {None, job.get("recipe_name")}:
            found.append(run)
    return max(found, key=lambda run: run.name[-15:], default=None)


def format_resume(run: Path) -> str:
    """Return the command line that resumes a run."""
    return shlex.join(["python", "-m", "training", "--resume", str(run)])


def read_job(run: Path) -> dict[str, Any]:
    """Read the options that a run was started with; none if their files are missing or damaged."""
    try:
        job = dict(json.loads((run / JOB_FILE).read_text(encoding="utf-8")))
        job["recipe"] = dict(json.loads((run / RECIPE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    job["notes"] = [Path(path) for path in job.pop("notes", [])]
    for key in ("test_sets", "foreign"):
        job[key] = [(name, Path(path)) for name, path in job.pop(key, [])]
    return job | {key: Path(job[key]) for key in ("models",) if key in job}


def write_job(run: Path, options: Options) -> None:
    """Write the options of a run. Paths become absolute, because it may be resumed from another working directory."""
    job = options.model_dump(exclude={"recipe", "resume", "runs"}, exclude_none=True)
    job |= {key: str(Path(job[key]).absolute()) for key in ("models", "start") if key in job}
    job["notes"] = [str(path.absolute()) for path in options.notes]
    for key in ("test_sets", "foreign"):
        job[key] = [[name, str(path.absolute())] for name, path in job[key]]
    if options.data != OFFICIAL:
        job["data"] = str(Path(options.data).absolute())
    (run / JOB_FILE).write_text(json.dumps(job, indent=2), encoding="utf-8")  # in ASCII: a path may be invalid Unicode


def _make_run(path: Path, started: datetime.datetime) -> Path:
    """Make a new folder for a run. If another run started in the same second, it gets the next second's name."""
    while True:
        run = path.with_name(f"{path.name}-{started:%Y%m%d-%H%M%S}")
        try:
            run.mkdir()
        except FileExistsError:
            started += datetime.timedelta(seconds=1)
        else:
            return run


def require_writable(folder: Path) -> None:
    """Make `folder` if it is missing, and check that it is writable, before hours of training.

    Raises:
        FolderError: with the system's reason.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise FolderError(f"can't write into {str(folder)!a}: TensorFlow needs paths in UTF-8") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderError(f"can't write into {folder}: {error.strerror}") from error


def start_run(run: Path, recipe: Recipe, data: dict[str, Any], start: TrainingRun) -> None:
    """Make the folder and record how the run was started; `data` identifies its data set."""
    run.mkdir(parents=True, exist_ok=True)
    (run / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2), encoding="utf-8")
    (run / DATA_FILE).write_text(json.dumps(data, indent=2), encoding="utf-8")
    (run / START_FILE).write_text(start.model_dump_json(indent=2), encoding="utf-8")


def read_start(run: Path) -> TrainingRun:
    """Read how the run in the folder `run` was started.

    Raises:
        ResumeError: its file is damaged.
    """
    try:
        return TrainingRun.model_validate_json((run / START_FILE).read_bytes())
    except ValidationError as error:
        raise tell_damaged(run / START_FILE) from error


def read_history(run: Path) -> list[dict[str, float]]:
    """Read the history of the run in the folder `run`: one record per finished epoch.

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


def read_kept_epoch(run: Path) -> int | None:
    """Return the number of the best epoch, from 1; None if the run kept no best epoch."""
    path = run / BEST_FILE
    if not path.exists():
        return None
    with np.load(path) as saved:
        return int(saved["epoch"]) + 1


def require_resumable(
    run: Path, recipe: Recipe, data: dict[str, Any] | None = None, precision: str | None = None
) -> None:
    """Raise unless the run has a finished epoch, and the same recipe, data and precision.

    Pass None for data and precision if they are not known yet.

    Raises:
        ResumeError: a file is missing or damaged, or a value differs.
    """
    if not run.is_dir():
        raise ResumeError(f"nothing to resume: {run} is not a folder")
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
    """Raise if a value in `file`, or else in `defaults`, differs from `now`."""
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
    """Return the error for a damaged file of a run."""
    return ResumeError(f"nothing to resume: {path} is damaged")


def trim_history(run: Path, epochs: int) -> None:
    """Keep the rows of the first `epochs` epochs. A later one was logged but not saved, and runs again.

    Raises:
        ResumeError: one of them is missing or damaged.
    """
    with (run / HISTORY_FILE).open("a+b") as file:
        file.seek(0)
        file.truncate(sum(len(line) for line, _ in zip(file, range(1 + epochs), strict=False)))  # 1: the header
    if len(read_history(run)) != epochs:
        raise tell_damaged(run / HISTORY_FILE)
