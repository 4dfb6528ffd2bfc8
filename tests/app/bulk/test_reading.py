"""Behaviour of app.bulk.reading."""

import os
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk.inputs import list_input
from app.bulk.reading import Image, Reader
from app.bulk.storage import Location, locate
from app.errors import UploadTooLargeError
from tests.app.fakes import encode

NOWHERE = locate("/nowhere")


def read(source: Location, column: str | None = None, max_bytes: int = 10**6, requests: int = 2) -> list[Image]:
    listing = list_input(source, column=column, without=NOWHERE).to_pylist()
    return list(Reader(source, column=column, max_bytes=max_bytes, requests=requests).images(listing))


@pytest.mark.parametrize("is_local", [True, False])
def test_files_are_read(folder, remote, is_local):
    """From this machine, and from elsewhere."""
    images = read(locate(str(folder)) if is_local else remote("in"))
    paths = [f"{folder}/b.PNG", f"{folder}/more/a.jpg"] if is_local else ["test://in/b.PNG", "test://in/more/a.jpg"]
    assert [(image.path, image.row) for image in images] == [(path, None) for path in paths]
    assert [image.load() for image in images] == [encode("red"), encode("blue", kind="JPEG")]


def test_a_file_that_can_not_be_read_fails_alone(folder):
    """With the system's reason; a large one is not read."""
    (folder / "gone.png").symlink_to("nothing.png")
    (folder / "large.png").write_bytes(bytes(1001))
    good, gone, large, _ = read(locate(str(folder)), max_bytes=1000)
    assert good.load() == encode("red")
    with pytest.raises(OSError, match=r"^No such file or directory$"):
        gone.load()
    with pytest.raises(UploadTooLargeError, match="more than 1,000 bytes"):
        large.load()


def test_files_from_elsewhere_are_read_ahead(folder, remote, monkeypatch):
    """As many at a time as there may be requests, because each waits for the network. No more are kept."""
    for index in range(10):
        (folder / f"{index}.png").write_bytes(encode())
    (folder / "more" / "a.jpg").unlink()
    started, together = [], threading.Barrier(3)

    def read_file(_, path):
        started.append(path)
        together.wait(10)
        return b""

    monkeypatch.setattr(Reader, "_read_file", read_file)
    listing = list_input(remote("in"), column=None, without=NOWHERE).slice(0, 9).to_pylist()
    images = Reader(remote("in"), column=None, max_bytes=10, requests=3).images(listing)
    assert next(images).load() == b""
    assert len(started) <= 6  # three that are done, and the next three
    assert [image.load() for image in images] == [b""] * 8


def test_rows_are_read(write_parquet):
    """With the file and the row that each was in. A null is an empty file."""
    path = write_parquet("in/a.parquet", [b"0", b"1", b"2", None, b"4"])
    images = read(locate(str(path)), "image")
    assert [(image.path, image.row, image.load()) for image in images] == [
        (str(path), row, data) for row, data in enumerate([b"0", b"1", b"2", b"", b"4"])
    ]
    with pytest.raises(UploadTooLargeError):
        read(locate(str(path)), "image", max_bytes=0)[0].load()


def test_fields_of_structs_are_read(tmp_path):
    """Whose other fields are not."""
    rows = [{"bytes": b"0", "path": "x"}, None, {"bytes": None, "path": "y"}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    assert [image.load() for image in read(locate(str(tmp_path)), "image.bytes")] == [b"0", b"", b""]


def test_rows_of_a_damaged_file_fail_alone(write_parquet):
    """Each row has an image, with the reason."""
    path = write_parquet("in/a.parquet", [bytes([i]) * 2000 for i in range(6)])
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    images = read(locate(str(path)), "image")
    assert [image.row for image in images] == list(range(6))
    assert [images[row].load()[0] for row in (0, 1, 4, 5)] == [0, 1, 4, 5]
    for row in (2, 3):
        with pytest.raises(OSError, match=r"."):
            images[row].load()


@pytest.mark.parametrize("rows", [None, 6, 7])
def test_a_file_that_has_changed_since_it_was_listed(write_parquet, rows):
    """Or is gone: no row is taken for another one."""
    path = write_parquet("in/a.parquet", [b"0"] * 6, rows_per_group=6)
    source = locate(str(path))
    listing = list_input(source, column="image", without=NOWHERE).to_pylist()
    path.unlink()
    if rows:
        os.utime(write_parquet("in/a.parquet", [b"1"] * rows, rows_per_group=7), (1, 1))
    images = list(Reader(source, column="image", max_bytes=10**6, requests=1).images(listing))
    assert len(images) == 6
    with pytest.raises(OSError, match="changed since it was listed" if rows else "No such file"):
        images[0].load()
