"""Loads and runs a version in another process first, under a memory limit.

A graph of a few kilobytes can compile to gigabytes, and a damaged one can crash the runtime (20 changed bytes in a
SavedModel's `variables.index` end OpenVINO 2026.4 with SIGSEGV). No `except` helps against either. So the service loads
a version only after the preflight has succeeded.

The limit is RLIMIT_DATA, not RLIMIT_AS: it counts the memory that a process can write to, and not the address space
that runtimes reserve. It applies on top of what the runtime needs with no model loaded.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from app.contract import ModelMetadata, Precision, RuntimeName
from app.errors import RefusedVersionError
from app.runtime.load import Runtime, import_runtime, load_runtime
from app.versions.verify import load_model

# A preflight of the shipped model takes half a second.
_TIMEOUT_SECONDS = 120
_BACKGROUND_NICENESS = 19
_PR_SET_PDEATHSIG = 1
_REFUSED, _UNREADABLE = 3, 4  # exit statuses; the reason is on standard output
_MAX_REASON_CHARACTERS = 1000
# Each runtime reports a failed allocation in its own words, by some exception or signal.
_OUT_OF_MEMORY = re.compile(r"bad_alloc|\balloc(ate|ating)?\b|out.?of.?memory|MemoryError", re.IGNORECASE)


class _Request(NamedTuple):
    """The arguments of the other process, passed as JSON."""

    folder: str
    runtime: RuntimeName
    precision: Precision
    batch_sizes: Sequence[int]
    memory_bytes: int
    niceness: int


def run_preflight(
    folder: Path,
    *,
    runtime: RuntimeName,
    precision: Precision,
    batch_sizes: Sequence[int],
    memory_bytes: int,
    background: bool = False,
) -> None:
    """Load and verify the version in `folder` in another process, with one inference thread and no GPU.

    Args:
        folder: a version folder.
        runtime: the runtime that will load it.
        precision: the arithmetic in which it will run.
        batch_sizes: sizes of the batches that it will run.
        memory_bytes: how much memory the version may take, beside that of the runtime.
        background: whether to run at low priority, because another version is serving.

    Raises:
        RefusedVersionError: it fails a check, needs more memory, crashes the runtime or does not finish.
        OSError, MemoryError: the check could not run, so the version may be valid. With a MemoryError the process
            failed or was killed, for example by the kernel because the machine ran out of memory.
    """
    niceness = _BACKGROUND_NICENESS if background else 0
    request = _Request(str(folder.resolve()), runtime, precision, batch_sizes, memory_bytes, niceness)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}  # a GPU's memory belongs to the serving process
    try:
        ended = subprocess.run(
            [sys.executable, "-m", __name__, json.dumps(request)], cwd=Path(__file__).parents[2], env=environment,
            timeout=_TIMEOUT_SECONDS, check=False, stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RefusedVersionError(f"loading it takes longer than {_TIMEOUT_SECONDS} s") from error
    status = ended.returncode
    reason = ended.stdout.strip()[-_MAX_REASON_CHARACTERS:]
    if status == 0:
        return
    if status == _UNREADABLE:
        raise OSError(reason)
    if status in {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}:
        raise MemoryError(f"its preflight was killed by {signal.Signals(-status).name}")
    if _OUT_OF_MEMORY.search(reason if status == _REFUSED else ended.stderr):
        raise RefusedVersionError(
            f"loading it and running its golden images takes more than {memory_bytes / 2**20:,.0f} MiB "
            "(APP_MAX_MODEL_MEMORY_BYTES)"
        )
    if status == _REFUSED:
        raise RefusedVersionError(reason)
    if status < 0:
        raise RefusedVersionError(f"{runtime} crashes on it ({signal.Signals(-status).name})")
    # A fault of the preflight itself, such as a missing library.
    raise MemoryError(f"its preflight ended with status {status}: {ended.stderr.strip()[-_MAX_REASON_CHARACTERS:]}")


def main(request: _Request) -> int:
    """Load the version under the memory limit; return the exit status, with the reason on standard output."""
    os.nice(request.niceness)
    with contextlib.suppress(AttributeError):  # only Linux has prctl
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # so that it never outlives the service
    with contextlib.suppress(OSError):  # only Linux has this file
        # If the container runs out of memory, the kernel should kill this process, not the service.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")

    def load(folder: Path, _: ModelMetadata) -> Runtime:
        import_runtime(request.runtime)
        _limit_memory(request.memory_bytes)
        return load_runtime(folder, name=request.runtime, precision=request.precision, threads=1)

    try:
        load_model(Path(request.folder), load_runtime=load, batch_sizes=request.batch_sizes)
    except RefusedVersionError as error:
        print(error)
        return _REFUSED
    except MemoryError:
        print("out of memory")
        return _REFUSED
    except OSError as error:
        print(error)
        return _UNREADABLE
    return 0


def _limit_memory(more_bytes: int) -> None:
    """Let this process take `more_bytes` beyond the memory that it has now."""
    status = Path("/proc/self/status")
    if status.exists():  # on other systems than Linux, RLIMIT_DATA does not count mapped memory
        used = int(re.search(r"VmData:\s+(\d+) kB", status.read_text(encoding="ascii"))[1]) * 1024  # type: ignore[index]
        resource.setrlimit(resource.RLIMIT_DATA, (used + more_bytes, used + more_bytes))


if __name__ == "__main__":
    sys.exit(main(_Request(*json.loads(sys.argv[1]))))
