"""Behaviour of `python -m app.bulk`, except Ray's part, which tests/reliability/test_bulk.py covers."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.bulk import command, worker
from app.bulk.storage import JobError
from app.errors import NotReadyError
from app.versions.model import Model
from tests.app.fakes import encode, make_model, seal

ROOT = Path(__file__).parents[3]


@pytest.fixture
def version(models: Path) -> Path:
    (models / "tiny" / "1" / "saved_model.pb").touch()
    seal(models / "tiny" / "1")
    return models / "tiny" / "1"


@pytest.fixture(autouse=True)
def done(version: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Classify with a fake model and in this process instead of on Ray; returns the parts that were written."""

    def run_job(job, shards, cores):
        one = worker.Worker(job, cores or 1)
        for shard in shards:
            done.append(shard.part)
            yield one.classify(shard)

    def load() -> Model:
        return replace(make_model(), folder=version)

    done: list[str] = []
    monkeypatch.setattr(command, "load_newest", lambda *_: load())
    monkeypatch.setattr(worker, "make_loader", lambda *_, **__: lambda _: load())
    monkeypatch.setattr(command, "connect", nullcontext)
    monkeypatch.setattr(command, "run_job", run_job)
    return done


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Callable[..., int]:
    """Run the command on a folder, with further arguments."""

    def run(*arguments: object, source: object = folder, output: object = tmp_path / "out") -> int:
        return command.main([str(argument) for argument in (source, output, *arguments)])

    return run


def read_rows(tmp_path: Path) -> dict[str, dict]:
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert len({row["path"] for row in rows}) == len(rows)
    return {Path(row["path"]).name: row for row in rows}


def test_every_image_is_a_row(run, folder, tmp_path, capfd):
    """With the number of predictions that was asked for. Damaged images are rows too, and the status is 0."""
    (folder / "c.png").write_bytes(encode()[:60])
    assert run("--top-k", 3) == 0
    rows = read_rows(tmp_path)
    assert {name: row["label"] or row["code"] for name, row in rows.items()} == {
        "a.jpg": "blue", "b.PNG": "red", "c.png": "broken_image"
    }  # fmt: skip
    assert len(rows["a.jpg"]["predictions"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f"{tmp_path}/out: 3 images, 3 of them from this run, 1 of them with an error"


def test_progress_has_the_speed_and_the_time_left(run, capfd):
    """In lines, where there is no terminal."""
    assert run() == 0
    first, *_, last, _ = capfd.readouterr().err.splitlines()
    assert first == "0 of 2 images (0 %), ? images/s, ? left"
    assert last.startswith("2 of 2 images (100 %)")
    assert last.endswith(" images/s, 00:00 left")


def test_a_second_run_does_what_is_missing(run, folder, tmp_path, done, capfd):
    """And nothing twice; what it leaves alone stays as it was written."""
    assert run("--shard-size", 1) == 0
    assert done == ["part-000-00000.parquet", "part-000-00001.parquet"]
    (tmp_path / "out" / done[0]).unlink()
    kept = (tmp_path / "out" / done[1]).stat().st_mtime_ns
    (folder / "new.png").write_bytes(encode("lime"))
    done.clear()
    assert run("--shard-size", 1) == 0
    assert done == ["part-000-00000.parquet", "part-001-00000.parquet"]
    assert (tmp_path / "out" / "part-000-00001.parquet").stat().st_mtime_ns == kept
    assert sorted(read_rows(tmp_path)) == ["a.jpg", "b.PNG", "new.png"]
    assert capfd.readouterr().err.splitlines()[-1] == f"{tmp_path}/out: 3 images, 2 of them from this run"
    done.clear()
    assert run() == 0
    assert done == []
    assert not (tmp_path / "out" / "_temporary").exists()
    assert capfd.readouterr().err == f"{tmp_path}/out: 3 images, 0 of them from this run\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"source": "{tmp}/nothing"}, "{tmp}/nothing: no such file or folder"),
        ({"source": "{tmp}/models"}, "{tmp}/models: no image in it; Parquet files need --column"),
        ({"source": "ftp://host/x"}, "ftp://host/x: Unrecognized filesystem type in URI: ftp://host/x"),
        ({"output": "{tmp}/in"}, "{tmp}/in: not empty, and not the results of an earlier run; choose another OUTPUT"),
        ({"output": "{tmp}/in/b.PNG"}, "{tmp}/in/b.PNG: a file, not a folder"),
        ({"output": "{tmp}/in/b.PNG/out"}, "{tmp}/in/b.PNG/out: Not a directory"),
        ({"flags": ["--top-k", "4"]}, "--top-k 4: the model has 3 classes"),
        ({"flags": ["--column", "image"]}, "{tmp}/in: no Parquet file in it"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, capfd, done, arguments, said):
    """Exit status 2, before any work, and nothing is written."""
    before = sorted(tmp_path.rglob("*"))
    flags = arguments.pop("flags", [])
    places = {key: place.format(tmp=tmp_path) for key, place in arguments.items()}
    assert run(*flags, **places) == 2
    assert capfd.readouterr().err == f"python -m app.bulk: {said.format(tmp=tmp_path)}\n"
    assert (sorted(tmp_path.rglob("*")), done) == (before, [])


def test_results_of_another_model_are_kept(run, version, tmp_path, capfd):
    """Exit status 2, and nothing is overwritten."""
    assert run() == 0
    files = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    capfd.readouterr()
    seal(version, commit="other")
    assert run() == 2
    said = capfd.readouterr().err
    assert said.startswith(f"python -m app.bulk: {tmp_path}/out: has the results of digest ")
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_a_failed_job_is_one_line(run, monkeypatch, capfd):
    """Exit status 1: a second run does the rest."""

    def fail(*_):
        raise JobError("OSError: No space left on device")
        yield

    monkeypatch.setattr(command, "run_job", fail)
    assert run() == 1
    assert capfd.readouterr().err.splitlines()[-1] == "python -m app.bulk: OSError: No space left on device"


def test_a_cluster_that_does_not_fit_is_found_before_anything_is_written(run, tmp_path, monkeypatch, capfd):
    """Exit status 2, and an OUTPUT that exists stays as it is."""

    def refuse(cores):
        raise JobError(f"--cores {cores}: no node has as many")

    monkeypatch.setattr(command, "connect", refuse)
    assert run("--cores", 64) == 2
    assert capfd.readouterr().err == "python -m app.bulk: --cores 64: no node has as many\n"
    assert not (tmp_path / "out").exists()


def test_a_job_that_is_done_needs_no_ray(run, monkeypatch):
    assert run() == 0
    monkeypatch.setattr(command, "connect", None)
    assert run() == 0


def test_no_model_and_bad_settings_are_exit_status_2(run, monkeypatch, capfd):
    """The store has logged the first; the second is the service's own line."""

    def fail(*_):
        raise NotReadyError("no model serves", retry_after_seconds=1)

    monkeypatch.setenv("APP_MAX_BATCH_SIZE", "0")
    assert run() == 2
    assert capfd.readouterr().err.startswith("python -m app.bulk: APP_MAX_BATCH_SIZE: ")
    monkeypatch.delenv("APP_MAX_BATCH_SIZE")
    monkeypatch.setattr(command, "load_newest", fail)
    assert run() == 2


def test_workers_get_no_api_keys_and_absolute_paths(run, tmp_path, monkeypatch):
    """Settings pass through Ray to every node, and workers run in folders of their own."""
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APP_API_KEYS", "x" * 16)
    monkeypatch.setattr(command, "run_job", lambda job, *_: seen.append(job) or [])
    assert run(source="in", output="out") == 0
    (job,) = seen
    assert job.settings.api_keys == ()
    assert job.settings.model_dir.is_absolute()
    assert (job.source, job.output) == (f"{tmp_path}/in", f"{tmp_path}/out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_to_go_on(number):
    """With the usual exit status, from the first import on."""
    code = (
        "import os, runpy, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == 'pydantic': os.kill(os.getpid(), {number:d})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "runpy.run_module('app.bulk', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "python -m app.bulk: stopped; run the same command again to resume\n"


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_without_the_extra_a_line_says_how_to_install_it(missing):
    """Exit status 2."""
    code = f"import runpy, sys; sys.modules[{missing!r}] = None; runpy.run_module('app.bulk', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"python -m app.bulk: {missing} is not installed: pip install '.[bulk]'\n"
