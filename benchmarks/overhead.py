"""Measures what the service adds to the model's own time for one client, and what the access log costs under load."""

from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from app.runtime.load import load_runtime
from benchmarks.comparison import WARM_UP_SECONDS
from benchmarks.pictures import SMALL, Known, find_version, make_pictures
from benchmarks.process import running
from benchmarks.runtime import time_runs
from benchmarks.services import Service
from benchmarks.wrk import load

MANY_CLIENTS = 32


@dataclass(frozen=True)
class Overhead:
    """Medians over the rounds."""

    precision: str
    runtime_ms: float  # one image, the runtime alone
    form_p50_ms: float
    raw_p50_ms: float
    per_second: float  # under load
    logging_per_second: float  # the same with the access log

    def render(self) -> str:
        """Render as Markdown."""
        return (
            f"With one client and small images in {self.precision}, the median latency is {self.form_p50_ms:.2f} ms"
            f" with multipart bodies and {self.raw_p50_ms:.2f} ms with raw bodies. The runtime alone takes"
            f" {self.runtime_ms:.2f} ms for an image. With {MANY_CLIENTS} clients and multipart bodies, the service"
            f" answers {self.per_second:.0f} requests/s, or {self.logging_per_second:.0f} with the access log.\n"
        )


def measure_overhead(service: Service, known: Known, *, seconds: int, rounds: int) -> Overhead:
    """Run the model in this process and load the service, in turn.

    Raises:
        LeftOutError: the service can't start.
    """
    runtime = load_runtime(find_version(), name="openvino", precision=service.precision, threads=0)
    predict = runtime.predict_alone or runtime.predict
    image = np.random.default_rng(0).integers(0, 256, (1, *runtime.input.shape), dtype=np.uint8)
    small = make_pictures(SMALL)
    alone, form, raw = [], [], []
    unlogged: list[float] = []
    logged: list[float] = []
    logging_service = replace(service, environment=service.environment | {"APP_LOG_LEVEL": "info"})
    with running(service) as process, running(logging_service) as logging_process:
        for started in (process, logging_process):
            started.wait_until_right(known)
            load(started.url, small, "form", clients=MANY_CLIENTS, seconds=WARM_UP_SECONDS)
        for _ in range(rounds):
            alone.append(1000 * median(time_runs(lambda: predict(image), seconds)))
            form.append(load(process.url, small, "form", clients=1, seconds=seconds).p50_ms)
            raw.append(load(process.url, small, "raw", clients=1, seconds=seconds).p50_ms)
            for started, rates in ((process, unlogged), (logging_process, logged)):
                seen = load(started.url, small, "form", clients=MANY_CLIENTS, seconds=seconds)
                rates.append(seen.per_second)
    return Overhead(service.precision, *map(median, (alone, form, raw, unlogged, logged)))
