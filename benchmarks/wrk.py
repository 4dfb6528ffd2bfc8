"""Runs wrk, the load generator: clients that send the next request as soon as they get an answer (closed loop)."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.pictures import encode_body
from benchmarks.services import Body, LeftOutError

PROGRAM = "wrk"
SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT_SECONDS = 60  # per request; then it counts as an error
GRACE_SECONDS = 30


class Seen(NamedTuple):
    """The clients' results. Latencies are in ms; 0 without an answer."""

    requests: int  # successful ones
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int  # statuses other than 2xx and 3xx, broken connections, timeouts

    @property
    def per_second(self) -> float:
        """Successful requests per second."""
        return self.requests / self.seconds


class Load:
    """A running load generator. Requests are encoded in advance."""

    def __init__(self, url: str, pictures: list[bytes], body: Body, *, clients: int, seconds: int) -> None:
        """Start sending `pictures` in turn; concurrent clients send different ones."""
        self._folder = tempfile.TemporaryDirectory()
        paths = [Path(self._folder.name, str(index)) for index in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            kind, content = encode_body(picture, body)
            path.write_bytes(content)
        # fmt: off
        command = [
            PROGRAM, "--threads", "1", "--connections", str(clients), "--duration", f"{seconds}s",
            "--timeout", f"{TIMEOUT_SECONDS}s", "--latency", "--script", str(SCRIPT), url, "--", kind, *map(str, paths),
        ]
        # fmt: on
        self._limit = seconds + GRACE_SECONDS
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self) -> Seen:
        """Wait for its end and return its results.

        Raises:
            LeftOutError: wrk failed, for example because nothing listens; with its message.
        """
        try:
            output, _ = self._process.communicate(timeout=self._limit)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._folder.cleanup()
        return parse_output(output)


def load(url: str, pictures: list[bytes], body: Body, *, clients: int, seconds: int) -> Seen:
    """Load `url` and return the results; see `Load`."""
    return Load(url, pictures, body, clients=clients, seconds=seconds).wait()


def parse_output(output: str) -> Seen:
    """Parse the line of JSON that the script printed in wrk's output.

    Raises:
        LeftOutError: there is none.
    """
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise LeftOutError(f"{PROGRAM} says: {output.strip()[-500:]}")
    return Seen(**json.loads(line))
