"""What the service counts and measures, for Prometheus. Labels are bounded: no client's word ever becomes one."""

from collections.abc import Callable, Iterator
from functools import partial

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
from app.versions.store import ModelStore, Outcome

MEDIA_TYPE = CONTENT_TYPE_LATEST
PREFIX = "classifier"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BYTES = tuple(4**power for power in range(4, 14))  # 256 bytes to 64 MiB
_IMAGES = tuple(2**power for power in range(9))  # 1 to 256


# When a series began is a second series for each, which nothing here makes use of.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One application's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        count = partial(Counter, namespace=PREFIX, registry=self._registry)
        measure = partial(Histogram, namespace=PREFIX, registry=self._registry)
        self._requests = count("requests", "Requests answered.", ("route", "status"))
        self._problems = count("problems", "Requests and images refused or failed, by the problem's code.", ("code",))
        self._loads = count("model_loads", "Attempts to load a version, by their outcome.", ("outcome",))
        self._hang_ups = count("hang_ups", "Connections ended by the service, by the reason.", ("reason",))
        self._request_seconds = measure(
            "request_seconds", "From a request's head to the end of its answer.", ("route",), buckets=_SECONDS
        )
        stage_seconds = measure(
            "stage_seconds", "What bodies and images spend in each stage.", ("stage",), buckets=_SECONDS
        )
        self._upload_bytes = measure("upload_bytes", "Sizes of request bodies.", buckets=_BYTES)
        self._batch_images = measure("batch_images", "Sizes of batches that ran.", buckets=_IMAGES)
        self.connections = Gauge("connections", "Connections that are open.", namespace=PREFIX, registry=self._registry)
        # Finding a label's series costs as much as counting in it; of all of these there are few.
        self._series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._stages = {stage: stage_seconds.labels(stage) for stage in STAGES}
        for outcome in ("loaded", "refused"):
            self._loads.labels(outcome)

    def watch(self, store: ModelStore, depth: Callable[[], int]) -> None:
        """Read at each scrape what `store` holds, and how many images are admitted and not yet answered."""
        queue = Gauge(
            "queue_images", "Images admitted and not yet answered.", namespace=PREFIX, registry=self._registry
        )
        queue.set_function(depth)
        self._registry.register(_StoreCollector(store))

    def observe_request(self, trace: Trace, *, route: str, status: int, seconds: float, received_bytes: int) -> None:
        """Count one request that is over. `route` is a template of the application's own, never a path."""
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
        """Count a batch that runs; may be called from any thread."""
        self._batch_images.observe(images)

    def observe_load(self, outcome: Outcome) -> None:
        """Count an attempt to load a version."""
        self._loads.labels(outcome).inc()

    def observe_hang_up(self, reason: str) -> None:
        """Count a connection that the service ended on its own; `reason` is one of the server's own words."""
        self._hang_ups.labels(reason).inc()

    def render(self) -> bytes:
        """Write everything in Prometheus's text format."""
        return generate_latest(self._registry)


class _StoreCollector(Collector):
    """What the store holds at the moment of a scrape: a version that is gone leaves no series behind."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            f"{PREFIX}_model_info",
            "The model that serves; always 1.",
            labels=("model", "version", "runtime", "precision"),
        )
        if model := self._store.model:
            metadata, runtime = model.metadata, model.runtime
            info.add_metric((metadata.name, str(metadata.version), runtime.name, runtime.precision), 1)
        yield info
        refused = len(self._store.refusals)
        yield GaugeMetricFamily(f"{PREFIX}_refused_versions", "Versions in the folder that may not serve.", refused)
        trouble = int(self._store.trouble is not None)
        yield GaugeMetricFamily(
            f"{PREFIX}_folder_trouble", "1 if the last look at the folder found no version.", trouble
        )
