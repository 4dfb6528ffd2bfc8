"""A rolling restart of three service processes behind nginx, under load.

`python -m benchmarks.rolling_restart` needs Debian's packages nginx and wrk, takes about a minute, and writes
rolling_restart.md into benchmarks/results. It exits with status 1 if any request failed.

Each process is restarted as an orchestrator does it: it gets SIGTERM, `/health` says `draining`, the proxy removes
it, and it exits; it starts again, `/health` says `ok`, and the proxy adds it.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import describe_machine
from benchmarks.port import find_free_port
from training.table import draw_table

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "tests" / "data" / "cat.png"
CONFIGURATION = Path(__file__).with_suffix(".nginx.conf")
SCRIPT = Path(__file__).with_suffix(".lua")
RESULTS = Path(__file__).parent / "results"
NEEDED = ("nginx", "wrk")
TIMEOUT_SECONDS = 60


class Outcome(NamedTuple):
    """The number of restarts and the load generator's results."""

    restarts: int
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    failed: dict[str, int]


class Replica:
    """One service process, always on the same port."""

    def __init__(self, folder: Path, drain_seconds: float) -> None:
        self.port = find_free_port()
        self._log = folder / f"replica-{self.port}.log"
        self._environment = os.environ | {
            "APP_PORT": str(self.port),
            "APP_MODEL_DIR": str(ROOT / "models"),
            "APP_DRAIN_SECONDS": str(drain_seconds),
            "APP_INFERENCE_THREADS": "1",  # three replicas share the machine
            "APP_MAX_BATCH_SIZE": "8",  # fewer batch sizes to warm, for a faster start
            "APP_LOG_LEVEL": "warning",
        }
        self.start()

    def start(self) -> None:
        """Start the process, without waiting until it is ready."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "app"]
            self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)

    def stop(self, which: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(which)

    def wait(self) -> int:
        """Wait until the process has exited; return its status."""
        return self._process.wait(TIMEOUT_SECONDS)

    def health(self) -> str | None:
        """Return the status in `/health`; None without an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            status: str = json.loads(connection.getresponse().read())["status"]
        except OSError:
            return None
        finally:
            connection.close()
        return status

    def is_ready(self) -> bool:
        """Whether it accepts requests."""
        return self.health() == "ok"

    def is_draining(self) -> bool:
        """Whether it is draining."""
        return self.health() == "draining"


class Proxy:
    """nginx, with its files in a temporary folder."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self._folder = folder
        self.port = find_free_port()
        self._configure(ports)
        command = ["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"]
        self._process = subprocess.Popen(command)
        wait_until(self._find_workers)

    def use(self, ports: list[int]) -> None:
        """Route requests to these ports; return when the requests under the old configuration are finished."""
        old = self._find_workers()
        self._configure(ports)
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._find_workers() and not self._find_workers() & old)

    def stop(self) -> None:
        """Stop it at once."""
        self._process.terminate()
        self._process.wait(TIMEOUT_SECONDS)

    def _configure(self, ports: list[int]) -> None:
        servers = "\n".join(f"        server 127.0.0.1:{port} max_fails=0;" for port in ports)
        template = string.Template(CONFIGURATION.read_text(encoding="utf-8"))
        (self._folder / "nginx.conf").write_text(template.substitute(servers=servers, port=self.port), encoding="utf-8")

    def _find_workers(self) -> set[str]:
        pid = self._process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())


def restart_in_turn(*, restarts: int, connections: int, drain_seconds: float, graceful: bool = True) -> Outcome:
    """Restart three processes one after the other under load; return the load generator's results.

    Args:
        restarts: number of restarts; six restart each process twice.
        connections: number of concurrent requests.
        drain_seconds: how long a process goes on serving after SIGTERM; the proxy must remove it in that time.
        graceful: restart as an orchestrator does; otherwise kill each process, which must show as failures.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        replicas = []
        for _ in range(3):
            replicas.append(Replica(folder, drain_seconds))
            stack.callback(replicas[-1].wait)
            stack.callback(replicas[-1].stop, signal.SIGKILL)
        for replica in replicas:
            wait_until(replica.is_ready)
        ports = [replica.port for replica in replicas]
        proxy = Proxy(folder, ports)
        stack.callback(proxy.stop)
        with loading(proxy.port, connections) as collect:
            for replica in islice(cycle(replicas), restarts):
                if graceful:
                    replica.stop(signal.SIGTERM)
                    wait_until(replica.is_draining)
                    proxy.use([port for port in ports if port != replica.port])
                    if (status := replica.wait()) != 0:
                        raise RuntimeError(f"a replica exited with status {status}")
                else:
                    replica.stop(signal.SIGKILL)
                    replica.wait()
                replica.start()
                wait_until(replica.is_ready)
                proxy.use(ports)
            seen = collect()
    return Outcome(restarts=restarts, **seen)


@contextmanager
def loading(port: int, connections: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Load `port` within the context; yields a function that ends the load and returns the results."""
    # fmt: off
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", "10m", "--timeout", "15s",
        "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(IMAGE),
    ]
    # fmt: on
    generator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def collect() -> dict[str, Any]:
        generator.send_signal(signal.SIGINT)  # makes wrk stop and print its results
        output, _ = generator.communicate(timeout=TIMEOUT_SECONDS)
        seen: dict[str, Any] = json.loads(output.splitlines()[-1])
        return seen

    try:
        yield collect
    finally:
        if generator.poll() is None:
            generator.kill()
            generator.wait(TIMEOUT_SECONDS)
        if generator.stdout:
            generator.stdout.close()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until `condition` returns something true.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} took more than {TIMEOUT_SECONDS} s")
        time.sleep(0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; print and write the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling_restart", description=__doc__)
    parser.add_argument("--restarts", type=int, default=6, help="number of restarts, of three processes in turn")
    parser.add_argument("--connections", type=int, default=16, help="number of concurrent requests")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args(arguments)
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    outcome = restart_in_turn(restarts=options.restarts, connections=options.connections, drain_seconds=5)
    failed = sum(outcome.failed.values())
    row = [
        str(outcome.restarts),
        f"{outcome.requests:,}",
        str(failed),
        *(f"{milliseconds:.0f} ms" for milliseconds in (outcome.p50_ms, outcome.p99_ms, outcome.max_ms)),
    ]
    text = (
        f"Three service processes behind nginx, drained and restarted one after the other, under {options.connections} "
        f"connections of wrk, for {outcome.seconds:.0f} s.\n\n"
        f"{draw_table(('restarts', 'requests', 'failed', 'p50', 'p99', 'slowest'), [row])}\n"
        f"Machine: {describe_machine()}.\n"
    )
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "rolling_restart.md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
