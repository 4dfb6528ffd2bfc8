"""Measures the time from the start of the process to the first 200 of `/health`."""

from dataclasses import dataclass
from statistics import median

from benchmarks.process import running
from benchmarks.services import Service


@dataclass(frozen=True)
class Start:
    """Seconds of each start."""

    seconds: list[float]

    def render(self) -> str:
        """Render as Markdown."""
        return (
            f"From `exec` to the first 200 of `/health`: {median(self.seconds):.2f} s, the median of"
            f" {len(self.seconds)} starts ({min(self.seconds):.2f}–{max(self.seconds):.2f} s).\n"
        )


def measure_start(service: Service, *, times: int) -> Start:
    """Start the service and stop it once it is healthy, `times` times.

    Raises:
        LeftOutError: the service can't start.
    """
    seconds = []
    for _ in range(times):
        with running(service) as process:
            seconds.append(process.wait_until_healthy())
    return Start(seconds)
