"""Finds and reads the files that a command line names."""

import errno
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from app.errors import UploadTooLargeError
from app.images.formats import SUFFIXES
from app.litter import is_hidden, is_litter
from app.stdio import show_name

STANDARD_INPUT = "-"
_PIECE_BYTES = 2**16
_ENDINGS = tuple(SUFFIXES)


class Found(NamedTuple):
    """The files that a command line names; the last two are messages for people."""

    names: list[str]
    """Files to classify."""
    missing: list[str]
    """Folders without an image, and those that can't be read."""
    skipped: list[str]
    """Files that are not classified, counted for each argument."""


def find_files(arguments: Sequence[str]) -> Found:
    """Find the named files, and the images in and below the named folders, sorted by name.

    Files that operating systems leave (app/litter.py) are skipped, unless a hidden file is itself an argument.
    """
    found = Found([], [], [])
    for argument in arguments:
        if os.path.isdir(argument):  # noqa: PTH112 - `Path("")` is the current folder
            _find_images(argument, found)
        elif _is_left_behind(argument):
            found.skipped.append(f"{show_name(argument)}: skipped; the operating system's own file")
        else:
            found.names.append(argument)
    return found


def read_file(name: str, max_bytes: int) -> bytes:
    """Read a file or standard input.

    Raises:
        UploadTooLargeError: it has more than `max_bytes`.
        OSError: it can't be read.
    """
    if name == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        return _read_bounded(sys.stdin.fileno(), max_bytes)
    with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - `Path.open` takes 1.5 times as long
        return _read_bounded(file.fileno(), max_bytes)


def _read_bounded(descriptor: int, max_bytes: int) -> bytes:
    size = os.fstat(descriptor).st_size  # 0 for pipes and devices
    pieces: list[bytes] = []
    count = 0
    if size <= max_bytes:
        while count <= max_bytes and (piece := os.read(descriptor, size + 1 if size else _PIECE_BYTES)):
            pieces.append(piece)
            count += len(piece)
    if max(size, count) > max_bytes:
        raise UploadTooLargeError(f"it has more than {max_bytes:,} bytes (APP_MAX_UPLOAD_BYTES)")
    return b"".join(pieces)


def _is_left_behind(name: str) -> bool:
    base = os.path.basename(name)  # noqa: PTH119 - as above
    return is_litter(base) and not is_hidden(base)


def _find_images(folder: str, found: Found) -> None:
    errors: list[OSError] = []
    images: list[str] = []
    others: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if not is_litter(name)]
        others["linked folder"] += sum(os.path.islink(os.path.join(parent, name)) for name in folders)  # noqa: PTH114, PTH118
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - making a `Path` takes as long as reading the file
            if is_litter(name):
                continue
            if name.lower().endswith(_ENDINGS) and _may_be_read(path):
                images.append(path)
            else:
                others[os.path.splitext(name)[1].lower() or "no suffix"] += 1  # noqa: PTH122 - as above
    found.names.extend(sorted(images))
    found.missing.extend(f"{show_name(error.filename)}: {error.strerror}" for error in errors)
    if not (images or errors):
        found.missing.append(f"{show_name(folder)}: no image in it")
    if counts := [f"{count} × {show_name(kind)}" for kind, count in sorted(others.items()) if count]:
        found.skipped.append(f"{show_name(folder)}: skipped, without an image suffix: {', '.join(counts)}")


def _may_be_read(path: str) -> bool:
    """Whether a path is a regular file. An inaccessible one counts as a file, so that reading it reports the error."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - as above
    except OSError:
        return True
