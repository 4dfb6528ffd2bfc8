"""A command's arguments and streams. Standard output and error may be closed, full or unable to encode the text."""

import argparse
import errno
import io
import os
import sys

from tqdm import tqdm

_MAX_DIGITS = 9  # of a count


def parse_count(text: str) -> int:
    """Return the positive number that an argument is; for argparse, which shows the error."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) > 0):
        shown = text[:_MAX_DIGITS]
        raise argparse.ArgumentTypeError(f"{shown!r} is not a positive number of up to {_MAX_DIGITS} digits")
    return int(text)


def parse_name(text: str) -> str:
    """Return the name of a file or folder that an argument is; for argparse, which shows the error."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def prepare_streams() -> None:
    """Make standard output escape characters that it can't encode, and discard output to a closed standard error.

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
    """Write a line to standard error, above a progress bar. If that fails, discard this and later lines."""
    try:
        tqdm.write(line, file=sys.stderr)
    except OSError:
        _discard_errors()


def show_name(name: str) -> str:
    r"""Escape a file name for a line of text: a line feed becomes \n, a byte that is not Unicode \xff."""
    if name.isprintable() and "\\" not in name:
        return name
    shown = os.fsencode(name.replace("\\", r"\\")).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def discard_output() -> None:
    """Discard all further output to standard output, including the flush at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _discard_errors() -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - open until the process exits
