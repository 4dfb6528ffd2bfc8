"""Files that take as much time or memory as they can get, four at once, affect no other client."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest
from PIL import Image

from tests.app.bombs import BOMBS
from tests.app.pictures import encode, make_halves
from tests.app.process import Process
from tests.reliability.memory import Watch

CONTAINER_BYTES = 2**30  # as compose and Kubernetes have it
PROBE_SECONDS = 0.25
# Sent at the same time. The service decodes one itself, decoders the others.
HONEST = (
    encode(make_halves((32, 32)), "PNG"),
    encode(make_halves((640, 480)), "JPEG"),
    encode(Image.effect_noise((1600, 1200), 50).convert("RGB"), "WEBP"),
)


class Clients:
    """Clients that send one request after another during a `with` block."""

    def __init__(self, process: Process) -> None:
        self.statuses: list[int] = []
        self.probes: list[float] = []  # seconds
        self._process = process
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._probe)]
        self._threads += [threading.Thread(target=self._send, args=(image,)) for image in HONEST]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _send(self, image: bytes) -> None:
        while not self._ended.is_set():
            self.statuses.append(self._process.ask("POST", "/predict", image)[0])

    def _probe(self) -> None:
        while not self._ended.is_set():
            started = time.monotonic()
            assert self._process.get("/health/live")[0] == 200
            self.probes.append(time.monotonic() - started)
            time.sleep(0.05)


@pytest.mark.timeout(600)
def test_four_bombs_at_once_affect_no_other_client(start, shipped, tell):
    """Other clients get answers, probes are quick, and the memory of all processes stays within the container's."""
    process = start(model_dir=shipped)
    process.wait_until("ok")

    def send(data: bytes) -> int:
        return process.ask("POST", "/predict", data)[0]

    files = {name: make() for name, make in BOMBS.items()}
    with ThreadPoolExecutor(4) as senders, Watch(process.popen.pid) as watch, Clients(process) as clients:
        for name, data in files.items():
            started, earlier = time.monotonic(), len(clients.probes)
            statuses = list(senders.map(send, [data] * 4))
            slowest = max(clients.probes[earlier:], default=0)
            print(
                f"{name}: {statuses} in {time.monotonic() - started:.1f} s; a probe took {1000 * slowest:.0f} ms; "
                f"{watch.peak / 2**20:.0f} MiB so far"
            )
            assert set(statuses) <= {200, 413, 422}, name
    assert send(files["AVIF with a large frame"]) == 422
    slowest = max(clients.probes)
    print(f"{len(clients.statuses)} honest images; {len(clients.probes)} probes, {1000 * slowest:.0f} ms at most")
    assert set(clients.statuses) == {200}
    assert watch.peak < CONTAINER_BYTES
    assert slowest < PROBE_SECONDS
    assert not [line for line in process.log if "Traceback" in line]
    tell(
        "bombs, four of each at once: other clients not answered, or more than the container's memory",
        4 * len(BOMBS),
        0,
    )
