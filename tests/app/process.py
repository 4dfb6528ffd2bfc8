"""Runs the service as a process with a real socket."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Process:
    """A server process on a free port."""

    def __init__(self, *, program: tuple[str, ...] = ("-m", "app"), **settings: object) -> None:
        environment = {**os.environ, "APP_PORT": "0", **{f"APP_{k.upper()}": str(v) for k, v in settings.items()}}
        self.popen = subprocess.Popen(
            [sys.executable, *program], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not self._listening.wait(30):
            self.end()
            raise AssertionError(self.log)
        self.port = int(next(m[1] for line in self.log if (m := re.search(r"http://127\.0\.0\.1:(\d+)", line))))

    def _read(self) -> None:
        for line in self.popen.stderr:
            self.log.append(line)
            if "running on" in line:
                self._listening.set()
        self._listening.set()

    def read_line(self, part: str) -> str:
        """Wait for a log line that contains this text."""
        for _ in range(500):
            if lines := [line for line in self.log if part in line]:
                return lines[0]
            time.sleep(0.02)
        raise AssertionError(self.log)

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=10)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
        """Send a request on a new connection."""
        connection = self.connect()
        try:
            return ask(connection, method, path, body)
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, dict]:
        return self.ask("GET", path)

    def wait_until(self, status: str) -> dict:
        for _ in range(500):
            if (health := self.get("/health")[1])["status"] == status:
                return health
            time.sleep(0.02)
        raise AssertionError(health, self.log)

    def signal(self, which: int = signal.SIGTERM) -> None:
        self.popen.send_signal(which)

    def wait(self) -> int:
        return self.popen.wait(30)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)
        self._reader.join()
        self.popen.stderr.close()


def ask(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
    connection.request(method, path, body, {"content-type": "image/png"} if body else {})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def list_children(process: int) -> list[int]:
    """Return the ids of a process's children, oldest first."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def list_decoders(process: int) -> list[int]:
    """Return the ids of a process's decoders."""
    return [decoder for child in list_children(process) for decoder in list_children(child)]


def stop_decoders(process: int) -> None:
    """Suspend a process's decoders, so that they never finish."""
    for decoder in list_decoders(process):
        os.kill(decoder, signal.SIGSTOP)


def is_running(process: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # before opening the file, or while reading it
        return False
    return state not in {"Z", "X"}


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("the condition never held")
