"""Reads a graph in a process of its own first: one that kills OpenVINO kills nobody who serves.

A file that is damaged in the right place ends the process that reads it (SIGSEGV in OpenVINO 2026.4 by twenty changed
bytes of a SavedModel's `variables.index`), which no `except` can help.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from app.errors import RefusedVersionError
from app.runtime.openvino import make_core

# Reading takes a fifth of a second, and what serves meanwhile goes first.
_TIMEOUT_SECONDS = 120
_NICENESS = 10


def probe_graph(path: Path) -> None:
    """Have another process read the graph, and see it survive.

    What else is wrong with it is for who loads it to say.

    Args:
        path: of a SavedModel or of an OpenVINO graph, whose bytes are those that were exported.

    Raises:
        RefusedVersionError: it did not survive, or did not come to an end.
        MemoryError: it was killed from outside, as is done where memory runs out, or could not be run; that says
            nothing of the graph.
    """
    command = [sys.executable, "-m", __name__, str(path.resolve())]
    try:
        status = subprocess.run(
            command, cwd=Path(__file__).parents[2], timeout=_TIMEOUT_SECONDS, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RefusedVersionError(f"OpenVINO has not read it in {_TIMEOUT_SECONDS} s") from error
    if status in {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}:
        raise MemoryError(f"who tried to read it got {signal.Signals(-status).name}")
    if status < 0:
        raise RefusedVersionError(f"OpenVINO dies of it ({signal.Signals(-status).name})")
    if status:  # not by the graph, whose refusal is none
        raise MemoryError(f"who tried to read it ended with status {status}")


def main(path: Path) -> None:
    """Read the graph; a refusal is no death."""
    os.nice(_NICENESS)
    with contextlib.suppress(OSError, RuntimeError):
        make_core().read_model(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
