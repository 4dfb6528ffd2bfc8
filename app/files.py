"""Image files as a command line names them: found, read, and named again for whoever reads the answer."""

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from app.image import SUFFIXES

STANDARD_INPUT = "-"
_ENDINGS = tuple(SUFFIXES)


def find_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the named files, with the images below a folder in order of their names; and what is missing, a line each.

    That is folders without an image, and those that may not be read.
    """
    names: list[str] = []
    missing: list[str] = []
    for argument in arguments:
        if not os.path.isdir(argument):  # noqa: PTH112 - to `Path`, nothing is the folder that one is in
            names.append(argument)
            continue
        errors: list[OSError] = []
        found = sorted(_walk(argument, errors))
        names += found
        missing += [f"{show_name(error.filename)}: {error.strerror}" for error in errors]
        if not (found or errors):
            missing.append(f"{show_name(argument)}: no image in it")
    return names, missing


def read_file(name: str) -> bytes:
    """Read a file, or standard input.

    Raises:
        OSError: it can't be read.
    """
    if name == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        return sys.stdin.buffer.read()
    with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - making a `Path` first adds half to the time
        return file.read()


def show_name(name: str) -> str:
    r"""Return a name for a line of text, in which a line feed, say, is written \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _walk(folder: str, errors: list[OSError]) -> Iterator[str]:
    for parent, _, names in os.walk(folder, onerror=errors.append):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - with a `Path` each, finding takes as long as reading
            if name.lower().endswith(_ENDINGS) and _may_be_read(path):
                yield path


def _may_be_read(path: str) -> bool:
    """Whether a path is a file, no pipe or folder; or can't be looked at, which is told when it is read."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - as above
    except OSError:
        return True
