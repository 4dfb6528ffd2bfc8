"""Behaviour of training.run: the folders of runs, and which run is resumed."""

import datetime

import pytest

from tests.training.fitting import START
from training.failures import ResumeError
from training.options import parse_options
from training.run import (
    CHECKPOINT_FILE,
    DATA_FILE,
    HISTORY_FILE,
    RECIPE_FILE,
    START_FILE,
    find_run,
    require_resumable,
    start_run,
    write_job,
)


def test_runs_started_in_the_same_second_get_different_folders(tmp_path, monkeypatch):
    """Otherwise one would overwrite the other's checkpoint and history."""

    class Clock(datetime.datetime):
        """Shows the last second of a year."""

        @classmethod
        def now(cls, tz):
            return cls(2026, 12, 31, 23, 59, 59, tzinfo=tz)

    monkeypatch.setattr("training.run.datetime.datetime", Clock)
    options = parse_options(["--runs", f"{tmp_path}/runs"])
    names = [find_run(options).name.removeprefix("minimodel-fast-") for _ in range(3)]
    assert names == ["20261231-235959", "20270101-000000", "20270101-000001"]


def begin_run(run, options):
    """Write the files of a run with a finished epoch."""
    start_run(run, options.recipe, {}, START)
    write_job(run, options)
    for file in (CHECKPOINT_FILE, HISTORY_FILE):
        (run / file).touch()


def test_the_newest_run_with_a_finished_epoch_is_resumed(tmp_path):
    """Not a newer one without a finished epoch, nor one of a model with a similar name."""
    options = parse_options(["--name", "a"])
    for name in ("a-fast-20260101-000000", "a-fast-20260102-000000"):
        begin_run(tmp_path / name, options)
    begin_run(tmp_path / "a-fast-fast-20260104-000000", parse_options(["--name", "a-fast"]))
    start_run(tmp_path / "a-fast-20260103-000000", options.recipe, {}, START)
    resumed = ["--resume", "--runs", str(tmp_path), "--name", "a"]
    assert find_run(parse_options(resumed)).name == "a-fast-20260102-000000"
    with pytest.raises(ResumeError, match="nothing to resume"):
        find_run(parse_options([*resumed, "--recipe", "article"]))


def test_a_run_records_the_options_it_was_started_with(tmp_path, monkeypatch):
    """Paths are absolute, so it resumes from any folder. Flags beside --resume override options."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.md").touch()
    monkeypatch.chdir(tmp_path)
    flags = ["--data", "photos", "--data-name", "mine", "--skip-damaged", "--models", "own", "--notes", "notes.md"]
    options = parse_options([*flags, "--recipe", "article", "--epochs", "3", "--folds", "4", "--from", "scratch"])
    begin_run(tmp_path / "run", options)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = parse_options(["--resume", "../run"])
    assert resumed.resume == "../run"
    absolute = {
        "data": f"{tmp_path}/photos",
        "models": tmp_path / "own",
        "notes": (tmp_path / "notes.md",),
        "resume": None,
    }
    assert resumed.model_copy(update={"resume": None}) == options.model_copy(update=absolute)
    assert parse_options(["--resume", "../run", "--quantize"]).quantize


@pytest.mark.parametrize("file", [RECIPE_FILE, DATA_FILE, START_FILE])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_run_is_refused_with_the_name_of_the_file(tmp_path, file, content):
    """In one line, for example after an incomplete copy."""
    options = parse_options([])
    begin_run(tmp_path / "run", options)
    (tmp_path / "run" / file).write_bytes(content)
    with pytest.raises(ResumeError, match=f"nothing to resume: .*/run/{file} is damaged"):
        require_resumable(tmp_path / "run", options.recipe, data={})


def test_a_run_without_history_is_refused(tmp_path):
    """At once, because the card needs it."""
    options = parse_options([])
    begin_run(tmp_path / "run", options)
    (tmp_path / "run" / HISTORY_FILE).unlink()
    with pytest.raises(ResumeError, match=f"nothing to resume: .*/run/{HISTORY_FILE} does not exist"):
        require_resumable(tmp_path / "run", options.recipe)


def test_resuming_without_a_run_is_refused(tmp_path):
    """If there is no run of that model."""
    with pytest.raises(ResumeError, match=r"no run of minimodel in .* has a finished epoch"):
        find_run(parse_options(["--resume", "--runs", str(tmp_path)]))
