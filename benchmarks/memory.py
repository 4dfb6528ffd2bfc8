"""Measures the service's resident memory at the start and after many requests."""

from dataclasses import dataclass

from benchmarks.pictures import MEDIUM, SMALL, Known, make_pictures
from benchmarks.process import running
from benchmarks.services import LeftOutError, Service
from benchmarks.wrk import load

CLIENTS = 32
STEP_SECONDS = 5


@dataclass(frozen=True)
class Memory:
    """Resident memory (RSS) of the process after each number of requests, the first without any."""

    requests: list[int]
    rss_mib: list[float]

    def render(self) -> str:
        """Render as Markdown."""
        marks = ", ".join(f"{rss:.0f} MiB after {n:,}" for n, rss in zip(self.requests, self.rss_mib, strict=True))
        return f"Resident memory by number of requests, with {CLIENTS} clients: {marks}.\n"


def measure_memory(service: Service, known: Known, *, marks: list[int]) -> Memory:
    """Send small and larger images; read the memory at each of the `marks` (numbers of requests).

    Raises:
        LeftOutError: the service can't start or stops answering.
    """
    pictures = make_pictures(SMALL) + make_pictures(MEDIUM)
    with running(service) as process:
        process.wait_until_right(known)
        memory = Memory([0], [process.read_rss_mib()])
        count = 0
        for mark in marks:
            while count < mark:
                seen = load(process.url, pictures, "form", clients=CLIENTS, seconds=STEP_SECONDS)
                if not seen.requests:
                    raise LeftOutError("it has stopped answering")
                count += seen.requests
            memory.requests.append(count)
            memory.rss_mib.append(process.read_rss_mib())
    return memory
