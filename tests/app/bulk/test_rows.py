"""Behaviour of app.bulk.rows."""

import pyarrow as pa
import pyarrow.parquet as pq

from app.bulk.rows import SCHEMA, Rows
from app.inference.pipeline import Failure
from tests.app.fakes import make_model, paint, tell_brightness


def test_a_row_has_the_fields_of_the_api(manifest):
    """And the image's origin. A failure has its code and reason instead."""
    rows = Rows(manifest)
    (scores,) = make_model(typicality=tell_brightness).score(paint("blue"))
    rows.add("a.png", None, scores)
    rows.add("b.parquet", 7, Failure("it is damaged", "broken_image"))
    good, bad = pq.read_table(pa.BufferReader(rows.finish())).to_pylist()
    assert (rows.count, rows.failed) == (2, 1)
    assert (good["path"], good["row"], good["label"], good["code"], good["error"]) == (
        "a.png",
        None,
        "blue",
        None,
        None,
    )
    assert good["predictions"][0] == {"label": "blue", "probability": good["probability"]}
    assert (len(good["predictions"]), round(good["typicality"], 2)) == (2, 0.33)
    assert bad == {
        "path": "b.parquet", "row": 7, "label": None, "probability": None, "predictions": None, "typicality": None,
        "code": "broken_image", "error": "it is damaged",
    }  # fmt: skip


def test_the_file_names_its_model(manifest):
    """In its metadata, with a schema that does not depend on the rows."""
    rows = Rows(manifest)
    rows.add("a.png", None, Failure("it is damaged", "broken_image"))
    schema = pq.read_schema(pa.BufferReader(rows.finish()))
    assert schema.equals(SCHEMA)
    assert schema.metadata == {b"model": b"tiny", b"version": b"1", b"digest": b"0" * 64}


def test_many_rows_are_all_there(manifest, monkeypatch):
    """Though few are kept as objects."""
    monkeypatch.setattr("app.bulk.rows._GROUP_ROWS", 3)
    rows = Rows(manifest)
    for index in range(8):
        rows.add("a.parquet", index, Failure("", "broken_image"))
        assert len(rows._values) < 3
    assert pq.read_table(pa.BufferReader(rows.finish()))["row"].to_pylist() == list(range(8))
