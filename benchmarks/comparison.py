"""Loads the services in turn, in rounds, so that other load on the machine affects all of them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from benchmarks.pictures import MEDIUM, SMALL, Kind, Known, make_pictures
from benchmarks.process import Process, running
from benchmarks.report import Record, Sample
from benchmarks.services import Body, LeftOutError, Service
from benchmarks.wrk import load

WARM_UP_SECONDS = 1
# Slow services are measured for longer, because wrk does not count requests that are unanswered at the end.
SLOW_FACTOR = 4


class Column(NamedTuple):
    """The images that are sent, the number of clients, and the bodies. A service gets the first that it reads."""

    title: str
    kind: Kind
    clients: int
    bodies: tuple[Body, ...]

    def choose_body(self, service: Service) -> Body | None:
        """Return the kind of body to send to the service; None if it reads none of them."""
        return next((body for body in self.bodies if body in service.bodies), None)


COLUMNS = (
    Column("32×32 PNG, 1 client, multipart", SMALL, 1, ("form", "v2")),
    Column("32×32 PNG, 32 clients, multipart", SMALL, 32, ("form", "v2")),
    Column("640×480 JPEG, 32 clients, multipart", MEDIUM, 32, ("form", "v2")),
    Column("32×32 PNG, 1 client, raw body", SMALL, 1, ("raw",)),
    Column("32×32 PNG, 32 clients, raw body", SMALL, 32, ("raw",)),
    Column("640×480 JPEG, 32 clients, raw body", MEDIUM, 32, ("raw",)),
)


class Runner(NamedTuple):
    """A running service and its results."""

    record: Record
    process: Process


def compare(services: list[Service], known: Known, *, seconds: int, rounds: int) -> list[Record]:
    """Measure the start and memory of each service, then each column, `rounds` times for `seconds`.

    In a round, all services run, and each column loads them one after the other in random order, so that the results of
    a column come from the same minute. Each service finishes its work before the next turn, because wrk does not wait
    for its last answers. Services that are busy while idle are suspended between their turns. The others are not,
    because suspending distorts services that adapt to measured times, such as BentoML. A service that can't start,
    answers incorrectly or stops answering is left out, and its record says why.
    """
    pictures = {kind: make_pictures(kind) for kind in (SMALL, MEDIUM)}
    records = [Record(service) for service in services]
    for record in records:
        with _leaving_out(record), running(record.service) as process:
            record.start_seconds = process.wait_until_right(known)
            _warm(process, record, pictures)
            record.pss_mib = process.read_pss_mib()
        _tell(record)
    with ExitStack() as stack:
        present = [record for record in records if not record.left_out]
        runners = [Runner(record, stack.enter_context(_running_warm(record, known, pictures))) for record in present]
        shuffling = np.random.default_rng(0)
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            for column in COLUMNS:
                for runner in [runners[index] for index in shuffling.permutation(len(runners))]:
                    body = column.choose_body(runner.record.service)
                    if body and not runner.record.left_out:
                        _take_turn(runner, column, body, pictures[column.kind], known, seconds)
            for record in present:
                _tell(record)
    return records


@contextmanager
def _leaving_out(record: Record) -> Iterator[None]:
    """Leave a service out if it fails, and record the reason."""
    try:
        yield
    except LeftOutError as error:
        record.left_out = str(error)


def _warm(process: Process, record: Record, pictures: dict[Kind, list[bytes]]) -> None:
    """Load each column briefly; record those in which some clients get no answer in that time."""
    for column in COLUMNS:
        if body := column.choose_body(record.service):
            sent = pictures[column.kind]
            seen = load(process.url, sent, body, clients=column.clients, seconds=WARM_UP_SECONDS)
            if seen.requests < column.clients:
                record.slow.add(column.title)


@contextmanager
def _running_warm(record: Record, known: Known, pictures: dict[Kind, list[bytes]]) -> Iterator[Process]:
    """Run a service and warm it up. Unlike at the first start, its files are in the page cache."""
    with running(record.service) as process:
        with _leaving_out(record):
            record.start_seconds = process.wait_until_right(known)
            _warm(process, record, pictures)
        if record.service.busy_while_idle:
            process.suspend()
        yield process


def _take_turn(runner: Runner, column: Column, body: Body, pictures: list[bytes], known: Known, seconds: int) -> None:
    """Load and measure a service. One that was suspended first finishes the work of its last turn."""
    record, process = runner
    if record.service.busy_while_idle:
        process.resume()
    with _leaving_out(record):
        process.check(known, body)
        before = process.read_cpu_seconds()
        span = seconds * SLOW_FACTOR if column.title in record.slow else seconds
        seen = load(process.url, pictures, body, clients=column.clients, seconds=span)
        record.samples.setdefault(column.title, []).append(Sample(seen, process.read_cpu_seconds() - before))
        if record.service.busy_while_idle:
            process.suspend()
        else:
            process.wait_until_idle()


def _tell(record: Record) -> None:
    if record.left_out:
        told = f"left out: {record.left_out}"
    elif record.samples:
        told = ", ".join(f"{samples[-1].seen.per_second:.0f}" for samples in record.samples.values()) + " requests/s"
    else:
        told = f"started in {record.start_seconds:.1f} s"
    print(f"{record.service.name}: {told}", flush=True)
