"""wrk, the load generator: some clients, each of which asks again as soon as it is answered, for some seconds."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.pictures import FORM_TYPE, encode_form, get_media_type
from benchmarks.services import Body, LeftOutError

PROGRAM = "wrk"
SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT_SECONDS = 60  # of one request; above that it counts as an error
GRACE_SECONDS = 30


class Seen(NamedTuple):
    """What the clients saw. Times are those of whole answers, in ms; 0 if there was none."""

    requests: int  # answered well
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int  # statuses other than 2xx and 3xx, broken connections, time-outs

    @property
    def per_second(self) -> float:
        """Requests answered well a second."""
        return self.requests / self.seconds


class Load:
    """A running load generator. Its requests are ready beforehand: encoding them takes none of its time."""

    def __init__(self, url: str, pictures: list[bytes], body: Body, *, clients: int, seconds: int) -> None:
        """Start sending `pictures` in turn; several clients send different ones at a time."""
        kind = FORM_TYPE if body == "form" else get_media_type(pictures[0])
        self._folder = tempfile.TemporaryDirectory()
        paths = [Path(self._folder.name, str(index)) for index in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            path.write_bytes(encode_form(picture) if body == "form" else picture)
        # fmt: off
        command = [
            PROGRAM, "--threads", "1", "--connections", str(clients), "--duration", f"{seconds}s",
            "--timeout", f"{TIMEOUT_SECONDS}s", "--latency", "--script", str(SCRIPT), url, "--", kind, *map(str, paths),
        ]
        # fmt: on
        self._limit = seconds + GRACE_SECONDS
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self) -> Seen:
        """Wait for its end and return what it saw.

        Raises:
            LeftOutError: it failed, as it does where nobody listens any more; the text is its own.
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
    """Load `url` and return what was seen; see `Load`."""
    return Load(url, pictures, body, clients=clients, seconds=seconds).wait()


def parse_output(output: str) -> Seen:
    """Find what the script printed in wrk's output.

    Raises:
        LeftOutError: it printed nothing of the kind.
    """
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise LeftOutError(f"{PROGRAM} says: {output.strip()[-500:]}")
    return Seen(**json.loads(line))
