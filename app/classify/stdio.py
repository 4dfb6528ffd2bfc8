"""A command's standard output and error, which may be closed or full, or unable to write what they get."""

import errno
import io
import os
import sys

from tqdm import tqdm


def prepare_streams() -> None:
    """Make standard output write what it has no letters for as escapes, and a closed standard error take what it gets.

    Raises:
        OSError: standard output is closed.
    """
    if sys.stderr is None:
        _discard_errors()
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def tell(line: str) -> None:
    """Write a line to standard error, above a progress bar; where that is not to be had, the work goes on."""
    try:
        tqdm.write(line, file=sys.stderr)
    except OSError:
        _discard_errors()


def discard_output() -> None:
    """Let nothing more be written to standard output, at exit either."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _discard_errors() -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the end
