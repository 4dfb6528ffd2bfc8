"""Behaviour of app.bulk.job without Ray; tests/reliability/test_bulk.py has the rest."""

import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from app.bulk import job
from app.bulk.job import share_cores
from app.bulk.results import Shard
from app.bulk.storage import JobError
from app.bulk.worker import Report
from app.errors import RefusedVersionError
from benchmarks.port import find_free_port

PART = "part-001-00002.parquet"


@pytest.mark.parametrize(("cores", "share"), [(1, 1), (2, 2), (4, 4), (5, 2), (6, 3), (7, 3), (8, 4), (10, 3), (16, 4)])
def test_workers_have_up_to_four_cores(cores, share):
    """So that at most one core in five is left over."""
    assert share_cores(cores) == share


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "[::1]:{port}"])
def test_a_cluster_that_can_not_be_reached_is_one_line(monkeypatch, address):
    """At once; Ray would try for minutes."""
    address = address.format(port=find_free_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    said = rf"^can't start or reach Ray \(RAY_ADDRESS={re.escape(address)}\): ."
    with pytest.raises(JobError, match=said), job.connect(None):
        pytest.fail("connected")


@pytest.fixture
def nodes(monkeypatch) -> list[str]:
    """Connect to nodes with 2 and 6 cores instead of Ray; returns what was done."""
    done: list[str] = []
    monkeypatch.setattr(job.ray, "init", lambda *_, **__: done.append("init"))
    monkeypatch.setattr(job.ray, "shutdown", lambda: done.append("shutdown"))
    found = [{"Alive": alive, "Resources": {"CPU": float(cores)}} for alive, cores in [(1, 2), (1, 6), (0, 64)]]
    monkeypatch.setattr(job.ray, "nodes", lambda: [*found, {"Alive": True, "Resources": {}}])
    return done


@pytest.mark.parametrize(("cores", "share"), [(None, 2), (1, 1), (6, 6)])
def test_a_worker_has_the_cores_of_the_command_line(nodes, cores, share):
    """Without them, a share of the smallest node's. Ray is stopped at the end."""
    with job.connect(cores) as found:
        assert (found, nodes) == (share, ["init"])
    assert nodes == ["init", "shutdown"]


def test_more_cores_than_a_node_has_are_refused(nodes):
    """Ray would wait for such a node without end."""
    with pytest.raises(JobError, match=r"^--cores 7: no node has as many$"), job.connect(7):
        pytest.fail("connected")
    assert nodes == ["init", "shutdown"]


@pytest.mark.parametrize("when", ["while Ray starts", "later"])
def test_sigterm_stays_with_the_command(nodes, monkeypatch, when):  # noqa: ARG001 -- `nodes` stands for Ray
    """Ray's handler, which it installs while it starts, would exit with another status."""

    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    def init(*_: object, **__: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        if when != "later":
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(job.ray, "init", init)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(StoppedError), job.connect(None):  # noqa: PT012 -- two moments
            assert when == "later"
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def classify(nodes, monkeypatch) -> Callable[..., Iterator[Report]]:  # noqa: ARG001 -- `nodes` stands for Ray
    """Run a job of three shards, for which Ray Data gives these rows before it raises an error."""

    def classify(*rows: dict[str, object], error: Exception | None = None) -> Iterator[Report]:
        class Items:
            def map_batches(self, *_: object, **options: object) -> "Items":
                assert options["max_task_retries"] == 3
                return self

            def iter_rows(self) -> Iterator[dict[str, object]]:
                yield from rows
                if error:
                    raise error

        monkeypatch.setattr(job.ray.data, "from_items", lambda *_, **__: Items())
        monkeypatch.setattr(job.DataContext, "get_current", SimpleNamespace)
        return job.run_job(None, [Shard(0, group, 3) for group in range(3)], 2)

    return classify


def test_a_shard_that_kills_its_worker_ends_the_job(classify):
    """In a line with its name, after the other shards: Ray leaves it out when it has tried four times."""
    done = [{"part": f"part-000-{group:05}.parquet", "images": 3, "failed": 1, "error": ""} for group in range(3)]
    assert list(classify(*done)) == [Report(3, 1)] * 3
    reports = classify(done[2], done[0])
    assert [next(reports), next(reports)] == [Report(3, 1)] * 2
    with pytest.raises(JobError, match=r"^no part-000-00001\.parquet: the worker died 4 times at each; all other"):
        next(reports)


def test_a_job_whose_shards_all_kill_their_workers_does_not_try_them_all(classify):
    with pytest.raises(JobError, match=r"^the worker died 4 times at each of more than 10 shards$"):
        list(classify(error=job.RayActorError()))


def test_an_error_of_a_worker_ends_the_job(classify):
    with pytest.raises(JobError, match=r"^OSError: No space left$"):
        list(classify({"part": "", "images": 0, "failed": 0, "error": "OSError: No space left"}))


@pytest.fixture
def actor(monkeypatch) -> Iterator[Callable[..., dict[str, list]]]:
    """Make an actor whose worker raises these errors; returns what it returns for a shard."""

    def call(*, loading: Exception | None = None, classifying: Exception | None = None) -> dict[str, list]:
        class Failing:
            def __init__(self, *_: object) -> None:
                if loading:
                    raise loading

            def classify(self, shard: Shard) -> Report:
                assert shard == Shard(1, 2, 3)
                if classifying:
                    raise classifying
                return Report(3, 1)

        monkeypatch.setattr(job, "Worker", Failing)
        batch = {name: np.array([value]) for name, value in Shard(1, 2, 3)._asdict().items()}
        return job._Actor(None, 1)(batch)

    yield call
    logging.getLogger("app").setLevel(logging.NOTSET)  # an actor, alone in its process, raises it


def test_an_actor_reports_its_shard(actor):
    assert actor() == {"part": [PART], "images": [3], "failed": [1], "error": [""]}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "Failed to write.\n No space left"), "OSError: [Errno 28] Failed to write. No space left"),
        (MemoryError("its preflight got SIGKILL"), "MemoryError: its preflight got SIGKILL"),
        (RefusedVersionError("its files differ"), "its files differ"),
        (JobError("/models has another version"), "/models has another version"),
    ],
)
def test_an_actor_returns_expected_errors(actor, error, said):
    """In a line, for the person who started the job. Ray would repeat a raised one, and print its own traceback."""
    assert actor(loading=error) == {"part": [PART], "images": [0], "failed": [0], "error": [said]}
    if isinstance(error, OSError):
        assert actor(classifying=error) == {"part": [PART], "images": [0], "failed": [0], "error": [said]}


def test_an_actor_returns_the_traceback_of_what_nobody_expects(actor):
    """A fault of the code. Ray would drop the shard of a raised one, and say nothing."""
    (error,) = actor(classifying=KeyError("x"))["error"]
    assert error.startswith("Traceback (most recent call last):")
    assert error.endswith("KeyError: 'x'\n")
