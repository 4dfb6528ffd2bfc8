"""Image files as a command line names them: found, read, and named again for whoever reads the answer."""

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from app.errors import UploadTooLargeError
from app.images.decode import SUFFIXES

STANDARD_INPUT = "-"
_PIECE_BYTES = 2**16
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


def read_file(name: str, max_bytes: int) -> bytes:
    """Read a file, or standard input.

    Raises:
        UploadTooLargeError: it has more than `max_bytes`.
        OSError: it can't be read.
    """
    if name == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        return _read_bounded(sys.stdin.fileno(), max_bytes)
    with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - making a `Path` first adds half to the time
        return _read_bounded(file.fileno(), max_bytes)


def show_name(name: str) -> str:
    r"""Return a name for a line of text: a line feed in it is written \n, a byte that is no Unicode \xff, say."""
    if name.isprintable() and "\\" not in name:
        return name
    shown = os.fsencode(name.replace("\\", r"\\")).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def _read_bounded(descriptor: int, max_bytes: int) -> bytes:
    size = os.fstat(descriptor).st_size  # 0 of a pipe or a device
    pieces: list[bytes] = []
    count = 0
    if size <= max_bytes:
        while count <= max_bytes and (piece := os.read(descriptor, size + 1 if size else _PIECE_BYTES)):
            pieces.append(piece)
            count += len(piece)
    if max(size, count) > max_bytes:
        raise UploadTooLargeError(f"it has more than {max_bytes:,} bytes (APP_MAX_UPLOAD_BYTES)")
    return b"".join(pieces)


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
