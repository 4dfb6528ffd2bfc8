"""The rows of the results: one for each image, with its classes or with the code of its error."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.api.schemas import describe
from app.bulk.results import Manifest
from app.inference.pipeline import Failure
from app.versions.model import Scores

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("row", pa.int64()),  # in a Parquet file; null for an image file
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("predictions", pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))),
        ("typicality", pa.float64()),
        ("code", pa.string()),  # null if the image was classified
        ("error", pa.string()),
    ]
)
_GROUP_ROWS = 8192  # rows that are kept as Python objects


class Rows:
    """Collects the rows of one part as a Parquet file in memory."""

    def __init__(self, manifest: Manifest) -> None:
        self._top_k = manifest.top_k
        self._schema = SCHEMA.with_metadata(
            {"model": manifest.model, "version": str(manifest.version), "digest": manifest.digest}
        )
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self.count = 0
        self.failed = 0

    def add(self, path: str, row: int | None, result: Scores | Failure) -> None:
        """Add an image's row."""
        self.count += 1
        if isinstance(result, Failure):
            self.failed += 1
            fields: dict[str, Any] = result._asdict()
        else:
            fields = {name: value for name, value in describe(result, self._top_k).items() if name != "model"}
        self._rows.append({"path": path, "row": row, **fields})
        if len(self._rows) == _GROUP_ROWS:
            self._flush()

    def finish(self) -> pa.Buffer:
        """Return the Parquet file."""
        self._flush()
        self._writer.close()
        return self._sink.getvalue()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []
