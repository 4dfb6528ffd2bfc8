"""The services in turn under the same loads, in rounds, so that whatever else the machine does meets them all."""

from typing import NamedTuple

from benchmarks.load import load
from benchmarks.pictures import MEDIUM, SMALL, Kind, Known, make_pictures
from benchmarks.process import LeftOutError, Process, running
from benchmarks.report import Record, Sample
from benchmarks.services import Body, Service

WARM_UP_SECONDS = 1
# A service whose answers take seconds is measured for longer: wrk counts none that it still waits for at the end.
SLOW_FACTOR = 4


class Column(NamedTuple):
    """What is sent, in which body, and by how many clients at a time."""

    title: str
    kind: Kind
    clients: int
    body: Body


COLUMNS = (
    Column("32×32 PNG, 1 client, multipart", SMALL, 1, "form"),
    Column("32×32 PNG, 32 clients, multipart", SMALL, 32, "form"),
    Column("640×480 JPEG, 32 clients, multipart", MEDIUM, 32, "form"),
    Column("32×32 PNG, 1 client, raw body", SMALL, 1, "raw"),
    Column("32×32 PNG, 32 clients, raw body", SMALL, 32, "raw"),
    Column("640×480 JPEG, 32 clients, raw body", MEDIUM, 32, "raw"),
)


def compare(services: list[Service], known: Known, *, seconds: float, rounds: int) -> list[Record]:
    """Measure every column of every service, `rounds` times for `seconds` each.

    A service that can't be started here, or that answers wrongly, is left out; its record says why.
    """
    pictures = {kind: make_pictures(kind) for kind in (SMALL, MEDIUM)}
    records = [Record(service) for service in services]
    for number in range(1, rounds + 1):
        for record in records:
            if record.left_out:
                continue
            try:
                with running(record.service) as process:
                    record.start_seconds.append(process.wait_until_right(known))
                    for column in COLUMNS:
                        if column.body in record.service.bodies:
                            sample = _measure(process, column, pictures[column.kind], known, seconds)
                            record.samples.setdefault(column.title, []).append(sample)
                    record.pss_mib.append(process.read_pss_mib())
            except LeftOutError as error:
                record.left_out = str(error)
            _tell(number, rounds, record)
    return records


def _measure(process: Process, column: Column, pictures: list[bytes], known: Known, seconds: float) -> Sample:
    """Load the service for a moment, wait until what that has left behind is answered too, then load and measure."""
    warm = load(process.url, pictures, column.body, clients=column.clients, seconds=WARM_UP_SECONDS)
    if not process.check(known, column.body):
        raise LeftOutError("it answers no more")
    if warm.requests < column.clients:
        seconds *= SLOW_FACTOR
    before = process.read_cpu_seconds()
    seen = load(process.url, pictures, column.body, clients=column.clients, seconds=seconds)
    return Sample(seen, process.read_cpu_seconds() - before)


def _tell(number: int, rounds: int, record: Record) -> None:
    rates = ", ".join(f"{samples[-1].seen.per_second:.0f}" for samples in record.samples.values())
    told = f"left out: {record.left_out}" if record.left_out else f"{rates} requests/s"
    print(f"round {number} of {rounds}, {record.service.name}: {told}", flush=True)
