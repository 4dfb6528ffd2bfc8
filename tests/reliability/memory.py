"""Measures the memory of a service with all its processes, from /proc."""

import threading
import time
from pathlib import Path
from typing import Self

from tests.app.process import list_children

_PERIOD_SECONDS = 0.02


def read_memory(process: int) -> int:
    """Return the memory of a process and its descendants, in bytes; shared memory counts once."""
    total = 0
    pending = [process]
    while pending:
        current = pending.pop()
        try:
            pending += list_children(current)
            lines = Path(f"/proc/{current}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


class Watch:
    """Measures the memory of a process and its descendants during a `with` block."""

    def __init__(self, process: int) -> None:
        self.peak = 0
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.is_set():
            self.peak = max(self.peak, read_memory(self._process))
            time.sleep(_PERIOD_SECONDS)
