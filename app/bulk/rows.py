"""The rows of the results: one for each image, with its classes or with the code of its error."""

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
_PREDICTION = SCHEMA.field("predictions").type.value_type
_GROUP_ROWS = 8192  # rows that are kept as Python objects

_Values = tuple[str, int | None, str | None, float | None, float | None, str | None, str | None]
"""The values of a row without its predictions, in the order of the schema."""


class Rows:
    """Collects the rows of one part as a Parquet file in memory."""

    def __init__(self, manifest: Manifest) -> None:
        self._top_k = manifest.top_k
        self._schema = SCHEMA.with_metadata(
            {"model": manifest.model, "version": str(manifest.version), "digest": manifest.digest}
        )
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        self.count = 0
        self.failed = 0
        self._clear()

    def add(self, path: str, row: int | None, result: Scores | Failure) -> None:
        """Add an image's row."""
        self.count += 1
        if isinstance(result, Failure):
            self.failed += 1
            values: _Values = (path, row, None, None, None, result.code, result.error)
            self._starts.append(None)
        else:
            found = describe(result, self._top_k)
            values = (path, row, found["label"], found["probability"], found.get("typicality"), None, None)
            self._starts.append(len(self._labels))
            self._labels += [prediction["label"] for prediction in found["predictions"]]
            self._probabilities += [prediction["probability"] for prediction in found["predictions"]]
        self._values.append(values)
        if len(self._values) == _GROUP_ROWS:
            self._flush()

    def finish(self) -> pa.Buffer:
        """Return the Parquet file."""
        self._flush()
        self._writer.close()
        return self._sink.getvalue()

    def _clear(self) -> None:
        self._values: list[_Values] = []
        self._starts: list[int | None] = []  # of each row's predictions in the next two; None if it has none
        self._labels: list[str] = []
        self._probabilities: list[float] = []

    def _flush(self) -> None:
        if not self._values:
            return
        # A table from one dictionary per row would take five times as long, while the cores wait.
        path, row, label, probability, typicality, code, error = map(list, zip(*self._values, strict=True))
        predictions = pa.ListArray.from_arrays(
            pa.array([*self._starts, len(self._labels)], pa.int32()),
            pa.StructArray.from_arrays(
                [pa.array(self._labels, pa.string()), pa.array(self._probabilities, pa.float64())],
                fields=list(_PREDICTION),
            ),
        )
        columns = [path, row, label, probability, predictions, typicality, code, error]
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._clear()
