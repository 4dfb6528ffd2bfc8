"""Runs workers on Ray Data: on this machine, or on the cluster that `RAY_ADDRESS` names. The only module with Ray.

Ray passes numbers of shards to an elastic pool of actors. Workers read images and write results themselves, so no image
passes through Ray's object store. If a worker or its machine dies, Ray starts another and repeats the worker's shards.
"""

import logging
import math
import os
import re
import signal
import socket
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayActorError
from ray.util.annotations import RayDeprecationWarning

from app.bulk.results import Shard
from app.bulk.storage import JobError, describe
from app.bulk.worker import Job, Report, Worker
from app.errors import RefusedVersionError
from app.runtime.cpu import count_cpus

_ADDRESS = "RAY_ADDRESS"
_CONNECT_SECONDS = 10
_CORES_PER_WORKER = 4  # with more, Python's lock would leave cores idle
_OBJECT_STORE_BYTES = 100 * 2**20  # of a local Ray; only numbers pass through it
_MAX_TRIES = 4  # of a shard whose worker or node dies
_MAX_LOST = 10  # shards; if every shard ends its worker, the job should not try them all


@contextmanager
def connect(cores: int | None) -> Iterator[int]:
    """Connect to the cluster of `RAY_ADDRESS`; without it, start Ray on this machine and stop it at the end.

    Yields the number of cores of a worker: `cores`, or a share of the smallest node's.

    Raises:
        JobError: the cluster can't be reached, or no node has `cores` cores.
    """
    # Unless the environment says otherwise: no statistics for Ray's developers, no log but fatal errors.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    local: dict[str, Any] = {
        "num_cpus": count_cpus(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    address = os.environ.get(_ADDRESS) or "local"
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if found := re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address):
            # Ray takes five minutes to say that nobody listens there.
            socket.create_connection((found[1].strip("[]"), int(found[2])), _CONNECT_SECONDS).close()
        with _silence():
            ray.init(
                address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **(local if address == "local" else {}),
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise JobError(f"can't start or reach Ray ({_ADDRESS}={address}): {describe(error)}") from error
    except SystemExit:  # from Ray's handler
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, handler)  # Ray's would print a stack and exit
        nodes = _list_cores()
        if cores and cores > max(nodes, default=0):
            raise JobError(f"--cores {cores}: no node has as many")
        yield cores or share_cores(min((count for count in nodes if count), default=_CORES_PER_WORKER))
    finally:
        ray.shutdown()


def run_job(job: Job, shards: Sequence[Shard], cores: int) -> Iterator[Report]:
    """Classify shards; yield a report for each one that is done.

    Args:
        job: what to do.
        shards: the shards, in the order in which workers take them.
        cores: number of cores of a worker.

    Raises:
        JobError: a worker can't load the model, read a list or write results, or shards are missing at the end because
            their workers died.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = _MAX_LOST
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    fitting = sum(count // cores for count in _list_cores())
    pool = ActorPoolStrategy(
        min_size=1,
        max_size=len(shards),
        initial_size=min(max(fitting, 1), len(shards)),
        max_tasks_in_flight_per_actor=2,
    )
    items = ray.data.from_items(list(map(Shard._asdict, shards)), override_num_blocks=len(shards))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # until 2.64, only this way bounds the tries
        options: dict[str, Any] = {"num_cpus": cores, "compute": pool, "max_task_retries": _MAX_TRIES - 1}
        done = items.map_batches(_Actor, fn_constructor_args=(job, cores), batch_size=1, **options)
    lost = {shard.part for shard in shards}
    try:
        for row in done.iter_rows():
            if row["error"]:
                raise JobError(row["error"])
            lost.discard(row["part"])
            yield Report(row["images"], row["failed"])
    except RayActorError as error:
        raise JobError(f"the worker died {_MAX_TRIES} times at each of more than {_MAX_LOST} shards") from error
    if lost:
        names = ", ".join(sorted(lost))
        raise JobError(f"no {names}: the worker died {_MAX_TRIES} times at each; all other images have a row")


def _list_cores() -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def share_cores(cores: int) -> int:
    """Return the number of cores of a worker on a node with this many: at most four, so that few are left over."""
    return cores // math.ceil(cores / _CORES_PER_WORKER)


class _Actor:
    """A worker, as Ray Data calls it. It returns errors, because Ray would drop the shards of raised ones."""

    def __init__(self, job: Job, cores: int) -> None:
        logging.getLogger("app").setLevel("WARNING")
        self._worker: Worker | None = None
        self._error = ""
        try:
            self._worker = Worker(job, cores)
        except (JobError, RefusedVersionError, OSError, MemoryError) as error:
            self._error = _name(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Classify one shard."""
        report = Report(0, 0)
        shard = Shard(*(int(batch[field][0]) for field in Shard._fields))
        if self._worker:
            try:
                report = self._worker.classify(shard)
            except OSError as error:
                self._error = _name(error)
            except Exception:  # noqa: BLE001 - Ray would drop the shard and its traceback
                self._error = traceback.format_exc()
        return {"part": [shard.part], "images": [report.images], "failed": [report.failed], "error": [self._error]}


def _name(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, JobError | RefusedVersionError) else f"{type(error).__name__}: {text}"


@contextmanager
def _silence() -> Iterator[None]:
    """Discard standard error: Ray's C++ code writes there that it will write nothing."""
    kept = os.dup(2)
    discarded = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(discarded, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(discarded)
