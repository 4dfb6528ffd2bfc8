"""Reads the images of a shard, from image files or from a column of Parquet files, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from app.bulk.storage import Location, describe
from app.errors import UploadTooLargeError

_BUFFER_BYTES = 8 * 2**20  # of a Parquet file, read at a time; a request to object storage takes tens of milliseconds
_BATCH_ROWS = 32


class Image(NamedTuple):
    """An image of the input."""

    path: str
    row: int | None  # in a Parquet file
    read: Callable[[], bytes]

    def load(self) -> bytes:
        """Return the image file.

        Raises:
            UploadTooLargeError: it has too many bytes.
            OSError: it can't be read.
        """
        return self.read()


class Reader:
    """Reads images of one input. `images` may be used by one thread at a time."""

    def __init__(self, source: Location, *, column: str | None, max_bytes: int, requests: int) -> None:
        """Make a reader.

        Args:
            source: where the input is.
            column: the column of Parquet files that holds image files; None for image files.
            max_bytes: size of the largest image.
            requests: number of files that are read at the same time, ahead of their use, if they are not local.
        """
        self._source = source
        self._column = column
        self._max_bytes = max_bytes
        self._ahead = 0 if source.is_local or column is not None else requests
        self._threads = ThreadPoolExecutor(requests)

    def images(self, listing: Iterable[Mapping[str, Any]]) -> Iterator[Image]:
        """Yield the images of these rows of a listing (`app.bulk.inputs.LISTING`), in order."""
        if self._column is not None:
            for item in listing:
                yield from self._read_row_group(item, self._column)
            return
        waiting: deque[Image] = deque()
        for item in listing:
            read: Callable[[], bytes] = partial(self._read_file, item["path"])
            if self._ahead:
                read = self._threads.submit(read).result
            waiting.append(Image(self._source.name(item["path"]), None, read))
            if len(waiting) > self._ahead:
                yield waiting.popleft()
        yield from waiting

    def _read_file(self, path: str) -> bytes:
        try:
            with self._source.filesystem.open_input_file(path) as file:
                size = file.size()
                self._require_size(size)
                data: bytes = file.read(size)
        except OSError as error:
            raise OSError(describe(error)) from error
        return data

    def _read_row_group(self, item: Mapping[str, Any], column: str) -> Iterator[Image]:
        """Yield the images of a row group. Rows that can't be read become images that can't."""
        name, row, end = self._source.name(item["path"]), item["first"], item["first"] + item["rows"]
        try:
            with self._source.filesystem.open_input_file(item["path"]) as file:
                if self._source.stamp(item["path"]) != item["stamp"]:
                    raise OSError("it has changed since it was listed")
                # Without `pre_buffer`, which would read the whole column of the row group.
                parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
                for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[item["group"]], columns=[column]):
                    values = batch.column(0)
                    while pa.types.is_struct(values.type):
                        (values,) = values.flatten()
                    for value in values:
                        yield Image(name, row, partial(self._check, value.as_py() or b""))
                        row += 1
        except (OSError, pa.ArrowException) as error:
            failure = OSError(describe(error))
            for rest in range(row, end):
                yield Image(name, rest, partial(_fail, failure))

    def _check(self, data: bytes) -> bytes:
        self._require_size(len(data))
        return data

    def _require_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise UploadTooLargeError(f"it has more than {self._max_bytes:,} bytes (APP_MAX_UPLOAD_BYTES)")


def _fail(error: OSError) -> bytes:
    raise error
