"""Runs a service as a process: starts, checks, measures and stops it with all its children."""

import contextlib
import http.client
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psutil
from annotated_types import Len
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.contract import GOLDEN_TOLERANCES
from benchmarks.pictures import ROOT, Known, encode_body
from benchmarks.port import find_free_port
from benchmarks.services import Body, LeftOutError, Service

TIMEOUT_SECONDS = 90
# A service that uses at most a tenth of a core is idle; /proc counts in hundredths of a second.
IDLE_SECONDS, IDLE_SHARE = 0.2, 0.1
STOP_SECONDS = 3  # then it is killed; no request is in flight


class Answer(BaseModel):
    """The fields that every service's answer has."""

    label: str
    probability: float


class Output(BaseModel):
    """A tensor of the Open Inference Protocol, for one image."""

    name: str
    data: Annotated[list[str | float], Len(1, 1)]


class Outputs(BaseModel):
    """An answer of the Open Inference Protocol, with the fields of `Answer` as tensors."""

    outputs: list[Output]


# BentoML's batched methods answer with lists, MLServer with tensors.
_Reply = Answer | Annotated[list[Answer], Len(1)] | Outputs
_REPLY: TypeAdapter[_Reply] = TypeAdapter(_Reply)


class Process:
    """A running service."""

    def __init__(self, service: Service, folder: Path) -> None:
        """Start it. Its log and other files go into `folder`.

        Raises:
            LeftOutError: its interpreter is not installed.
        """
        self.service = service
        self.port = find_free_port()
        self._log = folder / "log"
        environment = os.environ | service.listen(self.port) | {"BENTOML_HOME": str(folder), "TMPDIR": str(folder)}
        with self._log.open("wb") as log:
            self.started = time.monotonic()
            try:
                self._process = subprocess.Popen(service.command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            except FileNotFoundError as error:
                raise LeftOutError(f"not installed: {service.python}") from error
        self._root = psutil.Process(self._process.pid)

    @property
    def url(self) -> str:
        """The URL for images."""
        return f"http://127.0.0.1:{self.port}{self.service.path}"

    def wait_until_right(self, known: Known) -> float:
        """Wait for the first answer and return the seconds since the start.

        Raises:
            LeftOutError: it exited, gave a wrong answer, or did not answer in time.
        """
        body = self.service.bodies[0]
        seconds = self._wait(lambda: self._classify(known, body))
        self.check(known, body)
        return seconds

    def wait_until_healthy(self) -> float:
        """Wait until `/health` answers 200 and return the seconds since the start; raises like `wait_until_right`."""
        return self._wait(lambda: self._ask("GET", "/health", b"", {}))

    def check(self, known: Known, body: Body) -> None:
        """Classify the known image.

        Raises:
            LeftOutError: it does not answer, or the answer is wrong.
        """
        status, reply = self._classify(known, body)
        if status != http.HTTPStatus.OK:
            raise LeftOutError(f"it answers {status}: {reply[:200]!r}")
        try:
            answer = _parse(reply)
        except ValidationError as error:
            raise LeftOutError(f"it answers {reply[:200]!r}, without a label and probability") from error
        tolerance = GOLDEN_TOLERANCES[self.service.precision]
        if answer.label != known.label or abs(answer.probability - known.probability) > tolerance:
            raise LeftOutError(f"it answers {reply[:200]!r} where {known.label} with {known.probability:.3f} is right")

    def read_cpu_seconds(self) -> float:
        """Return the CPU time, user and system, of the process and all its children, those that have exited included.

        Raises:
            LeftOutError: the process has exited.
        """
        while True:
            self._require_alive()
            with contextlib.suppress(psutil.NoSuchProcess):  # a child has just exited: now its parent has its time
                return sum(sum(process.cpu_times()[:4]) for process in self._list_tree())

    def read_pss_mib(self) -> float:
        """Return the proportional set size of process and children; raises like `read_cpu_seconds`."""
        self._require_alive()
        pss = 0
        for process in self._list_tree():
            with contextlib.suppress(psutil.NoSuchProcess):  # a child that has just exited has no memory
                pss += process.memory_full_info().pss
        return pss / 2**20

    def read_rss_mib(self) -> float:
        """Return the resident memory of the process without children; raises like `read_cpu_seconds`."""
        self._require_alive()
        rss: int = self._root.memory_info().rss
        return rss / 2**20

    def wait_until_idle(self) -> None:
        """Wait until it no longer uses the CPU for requests whose clients have disconnected.

        Raises:
            LeftOutError: it exited or does not become idle.
        """
        until = time.monotonic() + TIMEOUT_SECONDS
        before = self.read_cpu_seconds()
        while time.monotonic() < until:
            time.sleep(IDLE_SECONDS)
            now = self.read_cpu_seconds()
            if now - before <= IDLE_SHARE * IDLE_SECONDS:
                return
            before = now
        raise LeftOutError(f"it is still busy {TIMEOUT_SECONDS} s after the last request")

    def suspend(self) -> None:
        """Suspend it and all its children."""
        for process in self._list_tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Resume it, children first, because a parent might time out on them."""
        for process in reversed(self._list_tree()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self) -> None:
        """Terminate it; kill what is left after `STOP_SECONDS`."""
        tree = self._list_tree()
        self.resume()
        self._process.terminate()
        _, left = psutil.wait_procs(tree, STOP_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, STOP_SECONDS)
        self._process.wait(STOP_SECONDS)

    def _wait(self, ask: Callable[[], tuple[int, bytes]]) -> float:
        """Ask until the answer is 200. Until they are ready, services answer 400, 404 or 503, or don't listen."""
        reply = b""
        while time.monotonic() < self.started + TIMEOUT_SECONDS:
            self._require_alive()
            status, reply = ask()
            if status == http.HTTPStatus.OK:
                return time.monotonic() - self.started
            time.sleep(0.01)
        reason = repr(reply[:200]) if reply else self._read_last_line()
        raise LeftOutError(f"not ready within {TIMEOUT_SECONDS} s: {reason}")

    def _require_alive(self) -> None:
        if self._process.poll() is not None:
            raise LeftOutError(self._read_last_line())

    def _classify(self, known: Known, body: Body) -> tuple[int, bytes]:
        kind, data = encode_body(known.data, body)
        return self._ask("POST", self.service.path, data, {"Content-Type": kind})

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Return the status and body of the answer; 503 if nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return http.HTTPStatus.SERVICE_UNAVAILABLE, b""
        finally:
            connection.close()

    def _list_tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _read_last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it exited without a message")


def _parse(reply: bytes) -> Answer:
    found = _REPLY.validate_json(reply)
    if isinstance(found, Outputs):
        return Answer.model_validate({output.name: output.data[0] for output in found.outputs})
    return found[0] if isinstance(found, list) else found


@contextmanager
def running(service: Service) -> Iterator[Process]:
    """Run a service within the context."""
    with tempfile.TemporaryDirectory() as folder:
        process = Process(service, Path(folder))
        try:
            yield process
        finally:
            process.stop()
