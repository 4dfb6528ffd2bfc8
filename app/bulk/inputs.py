"""Lists the images of a job: files in a folder or of a pattern, or the row groups of Parquet files."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from glob import has_magic

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate
from pyarrow import fs

from app.bulk.storage import JobError, Location, describe
from app.images.formats import SUFFIXES
from app.litter import is_litter
from app.stdio import show_name

_INT, _TEXT = pa.int64(), pa.string()
LISTING = pa.schema({"path": _TEXT, "group": pa.int32(), "first": _INT, "rows": _INT, "stamp": _TEXT})
"""A row for each image file, or for each row group of a Parquet file: its number, its first row, its number of rows,
and the file's stamp (`Location.stamp`), which is null for an image file."""

_READERS = 16  # of Parquet footers at the same time
_PARQUET = (".parquet", ".pq")


def list_input(source: Location, *, column: str | None, without: Location) -> pa.Table:
    """List the images of `source`, sorted by path.

    Args:
        source: a file, a folder (the files in and below it that are named as images, or as Parquet files if there is a
            `column`) or a pattern. Hidden files and what operating systems leave are skipped.
        column: the column of Parquet files that holds image files; None if `source` is image files.
        without: the folder of results, which may be inside `source`.

    Returns:
        A table with the schema `LISTING`.

    Raises:
        JobError: there is no such file or folder, it can't be read, it has no images, or a file has no such column.
    """
    endings = tuple(SUFFIXES) if column is None else _PARQUET
    try:
        paths = sorted(
            path
            for path in _find_files(source, endings)
            if source.prefix != without.prefix or not path.startswith(f"{without.path}/")
        )
        if not paths:
            kind = "image" if column is None else "Parquet file"
            hint = "; Parquet files need --column" if column is None else ""
            raise JobError(f"{show_name(str(source))}: no {kind} in it{hint}")
        if column is None:
            count = len(paths)
            return pa.table([paths, [0] * count, [0] * count, [1] * count, [None] * count], schema=LISTING)
        return _list_row_groups(source, paths, column)
    except UnicodeEncodeError as error:
        name = show_name(str(error.object))
        raise JobError(f"{name}: a file name that is not Unicode can't be written to Parquet; rename it") from error
    except OSError as error:
        raise JobError(f"{show_name(error.filename or str(source))}: {error.strerror or describe(error)}") from error


def find_column(schema: pa.Schema, name: str) -> pa.DataType | None:
    """Return the type of a column, or of a field of a struct (`image.bytes`); None if there is none."""
    if name in schema.names:
        return schema.field(name).type
    first, _, rest = name.partition(".")
    parent = schema.field(first).type if first in schema.names else None
    return find_column(pa.schema(parent), rest) if rest and pa.types.is_struct(parent) else None


def _find_files(source: Location, endings: tuple[str, ...]) -> Iterable[str]:
    path = source.path
    kind = source.filesystem.get_file_info(path).type
    if kind == fs.FileType.File:
        return [path]
    if kind == fs.FileType.Directory:
        return (file for file in _walk(source, path) if file.lower().endswith(endings))
    if not has_magic(path):
        raise JobError(f"{show_name(str(source))}: no such file or folder")
    try:
        pattern = re.compile(glob_translate(path))
    except ValueError as error:
        raise JobError(f"{show_name(str(source))}: {error}") from error
    folder = path[: re.search(r"[*?[]", path).start()].rpartition("/")[0]  # type: ignore[union-attr]
    return (file for file in _walk(source, folder or "/") if pattern.match(file))


def _walk(source: Location, folder: str) -> Iterator[str]:
    """Yield the files in and below a folder, without hidden ones and links to folders."""
    if source.is_local:
        # pyarrow would follow links in circles.
        for parent, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not is_litter(name)]
            paths = (os.path.join(parent, name) for name in names if not is_litter(name))  # noqa: PTH118 - as below
            yield from (path for path in paths if _may_be_read(path))
        return
    for info in source.filesystem.get_file_info(fs.FileSelector(folder, recursive=True)):
        below = info.path[len(folder) :].split("/")
        if info.type == fs.FileType.File and not any(is_litter(part) for part in below if part):
            yield info.path


def _raise(error: OSError) -> None:
    raise error


def _may_be_read(path: str) -> bool:
    """Whether a path is a regular file; opening a pipe could take forever. A broken link gets a row with its error."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - making a Path takes longer than the call
    except OSError:
        return True


def _list_row_groups(source: Location, paths: list[str], column: str) -> pa.Table:
    def read(path: str) -> list[tuple[str, int, int, int, str]]:
        name, stamp = show_name(source.name(path)), source.stamp(path)
        try:
            with source.filesystem.open_input_file(path) as file:
                parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise JobError(f"{name}: {describe(error)}") from error
        kind = find_column(parquet.schema_arrow, column)
        if kind is None:
            raise JobError(f"{name}: no column {column!r}; it has {', '.join(parquet.schema_arrow.names)}")
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise JobError(f"{name}: column {column!r} is {kind}, not binary")
        rows, first = [], 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if count:
                rows.append((path, group, first, count, stamp))
            first += count
        return rows

    with ThreadPoolExecutor(_READERS) as readers:
        rows = [row for found in readers.map(read, paths) for row in found]
    if not rows:
        raise JobError(f"{show_name(str(source))}: no rows in it")
    return pa.table([list(values) for values in zip(*rows, strict=True)], schema=LISTING)
