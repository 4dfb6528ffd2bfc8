"""Counts and measures what the service does, for Prometheus. Labels are bounded: no client's text becomes a label."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from app.telemetry.timings import STAGES, Trace

MEDIA_TYPE = CONTENT_TYPE_LATEST
PREFIX = "classifier"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BYTES = tuple(4**power for power in range(4, 14))  # 256 bytes to 64 MiB
_IMAGES = tuple(2**power for power in range(9))  # 1 to 256
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


# Prometheus's client adds a series with the creation time to each counter and histogram; no panel or alert uses them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ServingModel(NamedTuple):
    """The labels of `classifier_model_info`."""

    model: str
    version: str
    runtime: str
    precision: str


class ModelState(NamedTuple):
    """The model folder at the moment of a scrape."""

    serving: ServingModel | None
    refused_versions: int
    has_trouble: bool  # the last poll of the folder found no version


class Metrics:
    """One application's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        count = partial(Counter, namespace=PREFIX, registry=self._registry)
        measure = partial(Histogram, namespace=PREFIX, registry=self._registry)
        self._requests = count("requests", "Requests answered.", ("route", "status"))
        self._problems = count("problems", "Requests and images refused or failed, by problem code.", ("code",))
        self._loads = count("model_loads", "Attempts to load a version, by outcome.", ("outcome",))
        self._hang_ups = count("hang_ups", "Connections ended by the service, by reason.", ("reason",))
        self._decoder_restarts = count("decoder_restarts", "Decoder processes replaced, by reason.", ("reason",))
        self._dropped_lines = count("log_lines_dropped", "Log lines that could not be written.")
        self._request_seconds = measure(
            "request_seconds", "Time from a request's head to the end of its response.", ("route",), buckets=_SECONDS
        )
        stage_seconds = measure(
            "stage_seconds", "Time that bodies and images spend in each stage.", ("stage",), buckets=_SECONDS
        )
        self._upload_bytes = measure("upload_bytes", "Sizes of request bodies.", buckets=_BYTES)
        self._batch_images = measure("batch_images", "Sizes of batches that ran.", buckets=_IMAGES)
        self._typicality = measure("typicality", "Typicality of images, for versions that have it.", buckets=_SHARES)
        self.connections = Gauge("connections", "Open connections.", namespace=PREFIX, registry=self._registry)
        # Looking up a label's series costs as much as counting in it.
        self._series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._stages = {stage: stage_seconds.labels(stage) for stage in STAGES}
        for outcome in ("loaded", "refused"):  # from 0, because `increase` ignores the first value of a series
            self._loads.labels(outcome)

    def watch(self, read_state: Callable[[], ModelState], depth: Callable[[], int]) -> None:
        """Read the model folder's state and the number of images in the queue at each scrape."""
        queue = Gauge(
            "queue_images", "Images admitted and not yet answered.", namespace=PREFIX, registry=self._registry
        )
        queue.set_function(depth)
        self._registry.register(_StateCollector(read_state))

    def observe_request(self, trace: Trace, *, route: str, status: int, seconds: float, received_bytes: int) -> None:
        """Count one finished request. `route` is one of the application's route templates, never a client's path."""
        requests, request_seconds = self._find_series(route, status)
        requests.inc()
        request_seconds.observe(seconds)
        if received_bytes:
            self._upload_bytes.observe(received_bytes)
        for stage, spent in trace.stages:
            self._stages[stage].observe(spent)
        for code in trace.problems:
            self._problems.labels(code).inc()

    def _find_series(self, route: str, status: int) -> tuple[Counter, Histogram]:
        series = self._series.get((route, status))
        if series is None:
            series = self._requests.labels(route, str(status)), self._request_seconds.labels(route)
            self._series[route, status] = series
        return series

    def observe_batch(self, images: int) -> None:
        """Count a batch; may be called from any thread."""
        self._batch_images.observe(images)

    def observe_typicality(self, typicality: float) -> None:
        """Count an image by its typicality, 0 to 1; may be called from any thread."""
        self._typicality.observe(typicality)

    def observe_load(self, outcome: str) -> None:
        """Count an attempt to load a version; `outcome` is `loaded` or `refused`."""
        self._loads.labels(outcome).inc()

    def observe_decoder_restart(self, reason: str) -> None:
        """Count a decoder process that is replaced; `reason` is a `RestartReason` of `app.images.decoders`."""
        self._decoder_restarts.labels(reason).inc()

    def observe_hang_up(self, reason: str) -> None:
        """Count a connection that the service closed; `reason` is one of a fixed set."""
        self._hang_ups.labels(reason).inc()

    def observe_dropped_line(self) -> None:
        """Count a log line that is lost; may be called from any thread."""
        self._dropped_lines.inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _StateCollector(Collector):
    """Builds its series at each scrape, so that the series of replaced versions disappear."""

    def __init__(self, read_state: Callable[[], ModelState]) -> None:
        self._read_state = read_state

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        state = self._read_state()
        info = GaugeMetricFamily(
            f"{PREFIX}_model_info", "The model that serves; always 1.", labels=ServingModel._fields
        )
        if state.serving:
            info.add_metric(state.serving, 1)
        yield info
        yield GaugeMetricFamily(
            f"{PREFIX}_refused_versions", "Versions in the folder that may not serve.", state.refused_versions
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_folder_trouble", "1 if the last poll of the folder found no version.", int(state.has_trouble)
        )
