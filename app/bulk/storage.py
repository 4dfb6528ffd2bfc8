"""Files on pyarrow's file systems: local ones, `s3://`, `gs://` and others."""

import os
import re
from dataclasses import dataclass
from uuid import uuid4

from pyarrow import ArrowInvalid, fs, set_io_thread_count

TEMPORARY_FOLDER = "_temporary"
_MAX_CHARACTERS = 400  # of an error's text; libhdfs lists every folder where it looked for Java


class JobError(Exception):
    """The job can't start or go on; the text is a line for the person who started it."""


@dataclass(frozen=True)
class Location:
    """A file, folder or pattern on a file system."""

    filesystem: fs.FileSystem
    path: str
    """As the file system names it: absolute, or `bucket/key`."""
    prefix: str
    """Makes a URL of a path: `s3://`; empty for local files."""

    def __str__(self) -> str:
        return self.name(self.path)

    @property
    def is_local(self) -> bool:
        """Whether reading takes no request over a network."""
        return not self.prefix

    def name(self, path: str) -> str:
        """Return what people call a path of this file system."""
        return f"{self.prefix}{path}"

    def stamp(self, path: str) -> str:
        """Return a file's size and modification time, which differ once it was replaced.

        Raises:
            OSError: they can't be read.
        """
        info = self.filesystem.get_file_info(path)
        return f"{info.size} {info.mtime_ns}"


def locate(name: str, *, connections: int | None = None) -> Location:
    """Return the location that a local path or a URL names.

    Args:
        name: the path or URL.
        connections: how many files of a remote file system this process reads at the same time.

    Raises:
        JobError: it is no URL that pyarrow knows, or its file system can't be reached.
    """
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", name)
    if not scheme:
        return Location(fs.LocalFileSystem(), os.path.abspath(name), "")  # noqa: PTH100 - Path.absolute keeps ".."
    if connections:
        set_io_thread_count(connections)  # read when a file system is made; it has as many connections, but at least 25
    try:
        filesystem, path = fs.FileSystem.from_uri(name)
    except (ArrowInvalid, OSError) as error:
        raise JobError(f"{name}: {describe(error)}") from error
    prefix = "" if isinstance(filesystem, fs.LocalFileSystem) else scheme[0]
    return Location(filesystem, path.rstrip("/") or path, prefix)


def write_file(folder: Location, name: str, data: bytes) -> None:
    """Write a file into `folder` so that it appears whole or not at all. It replaces one of the same name.

    Raises:
        OSError: it can't be written.
    """
    # A name of its own, because a worker that counts as dead may still be writing the same file.
    temporary = f"{folder.path}/{TEMPORARY_FOLDER}/{name}.{uuid4().hex}"
    with folder.filesystem.open_output_stream(temporary) as file:
        file.write(data)
    folder.filesystem.move(temporary, f"{folder.path}/{name}")


def describe(error: Exception) -> str:
    """Return the first line of pyarrow's message, shortened, without the parts that repeat the path."""
    first, *_ = str(error).strip().splitlines() or [""]
    system = re.search(r"Detail: \[errno \d+\] (.*)", first)
    text = system[1] if system else first
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"
