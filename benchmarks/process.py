"""A service as a process of its own: started, asked, measured with all its children, stopped."""

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
from benchmarks.pictures import FORM_TYPE, ROOT, Known, encode_form, get_media_type
from benchmarks.port import find_free_port
from benchmarks.services import Body, LeftOutError, Service

PATIENCE_SECONDS = 90
# Idle is who takes a tenth of a core at most; /proc counts in hundredths of a second.
IDLE_SECONDS, IDLE_SHARE = 0.2, 0.1
STOP_SECONDS = 3  # nothing is lost by a kill then: no request is under way


class Answer(BaseModel):
    """What every service says of a picture, whatever it says besides."""

    label: str
    probability: float


_ANSWERS: TypeAdapter[Answer | Annotated[list[Answer], Len(1)]] = TypeAdapter(Answer | Annotated[list[Answer], Len(1)])
"""BentoML's batched methods answer with lists."""


class Process:
    """A running service."""

    def __init__(self, service: Service, folder: Path) -> None:
        """Execute it; it keeps its log and whatever else it writes in `folder`."""
        self.service = service
        self.port = find_free_port()
        self._log = folder / "log"
        environment = os.environ | service.listen(self.port) | {"BENTOML_HOME": str(folder)}
        with self._log.open("wb") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(service.command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self._root = psutil.Process(self._process.pid)

    @property
    def url(self) -> str:
        """Where images are sent."""
        return f"http://127.0.0.1:{self.port}{self.service.path}"

    def wait_until_right(self, known: Known) -> float:
        """Wait for the first answer and return the seconds since the start.

        Raises:
            LeftOutError: it has exited, answers wrongly, or does not answer in time.
        """
        return self._wait(lambda: self.check(known, self.service.bodies[0]))

    def wait_until_healthy(self) -> float:
        """Wait until `/health` says 200 and return the seconds since the start; see `wait_until_right`."""
        return self._wait(lambda: self._ask("GET", "/health", b"", {})[0] == http.HTTPStatus.OK)

    def check(self, known: Known, body: Body) -> bool:
        """Ask for what is known. False if it is not ready yet.

        Raises:
            LeftOutError: it says something else.
        """
        data = encode_form(known.data) if body == "form" else known.data
        kind = FORM_TYPE if body == "form" else get_media_type(known.data)
        status, reply = self._ask("POST", self.service.path, data, {"Content-Type": kind})
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        if status != http.HTTPStatus.OK:
            raise LeftOutError(f"it answers {status}: {reply[:200]!r}")
        try:
            answers = _ANSWERS.validate_json(reply)
        except ValidationError as error:
            raise LeftOutError(f"it says {reply[:200]!r}, which is no answer") from error
        answer = answers[0] if isinstance(answers, list) else answers
        tolerance = GOLDEN_TOLERANCES[self.service.precision]
        if answer.label != known.label or abs(answer.probability - known.probability) > tolerance:
            raise LeftOutError(f"it says {reply[:200]!r} where {known.label} with {known.probability:.3f} is right")
        return True

    def read_cpu_seconds(self) -> float:
        """Return the processor time, of user and system, that the process and all its children have taken.

        Raises:
            LeftOutError: it has exited, or one of its children just now.
        """
        with self._reading():
            times = [process.cpu_times() for process in self._list_tree()]
        return sum(entry.user + entry.system for entry in times)

    def read_pss_mib(self) -> float:
        """Return the resident memory of process and children, what they share counted once; raises like its sibling."""
        with self._reading():
            pss: int = sum(process.memory_full_info().pss for process in self._list_tree())
        return pss / 2**20

    def read_rss_mib(self) -> float:
        """Return the resident memory of the process alone; raises like its siblings."""
        with self._reading():
            rss: int = self._root.memory_info().rss
        return rss / 2**20

    def wait_until_idle(self) -> None:
        """Wait until its processor time says that it no longer works on requests whose clients have gone.

        Raises:
            LeftOutError: it has exited, or never ends.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        before = self.read_cpu_seconds()
        while time.monotonic() < until:
            time.sleep(IDLE_SECONDS)
            now = self.read_cpu_seconds()
            if now - before <= IDLE_SHARE * IDLE_SECONDS:
                return
            before = now
        raise LeftOutError(f"it is busy {PATIENCE_SECONDS} s after the last request")

    def suspend(self) -> None:
        """Keep it, with all its children, from running."""
        for process in self._list_tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Let it run again, its children first: a parent might miss them."""
        for process in reversed(self._list_tree()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self) -> None:
        """Ask it to stop; what is left of it after `STOP_SECONDS` is killed."""
        tree = self._list_tree()
        self.resume()
        self._process.terminate()
        _, left = psutil.wait_procs(tree, STOP_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, STOP_SECONDS)
        self._process.wait(STOP_SECONDS)

    def _wait(self, is_ready: Callable[[], bool]) -> float:
        while time.monotonic() < self.started + PATIENCE_SECONDS:
            self._require_alive()
            if is_ready():
                return time.monotonic() - self.started
            time.sleep(0.01)
        raise LeftOutError(f"no answer within {PATIENCE_SECONDS} s: {self._read_last_line()}")

    def _require_alive(self) -> None:
        if self._process.poll() is not None:
            raise LeftOutError(self._read_last_line())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read what the system knows of its processes, each of which may exit between being listed and being read."""
        self._require_alive()
        try:
            yield
        except psutil.NoSuchProcess as error:
            raise LeftOutError(f"a process of it has exited: {self._read_last_line()}") from error

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Return status and body of the reply; 503 if nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
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
        return next((line for line in reversed(lines) if line.strip()), "it exited and said nothing")


@contextmanager
def running(service: Service) -> Iterator[Process]:
    """Run a service for as long as the context is entered."""
    with tempfile.TemporaryDirectory() as folder:
        process = Process(service, Path(folder))
        try:
            yield process
        finally:
            process.stop()
