"""Behaviour of app.bulk.inputs."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk.inputs import LISTING, find_column, list_input
from app.bulk.storage import JobError, Location, locate
from tests.app.fakes import encode


def list_paths(source: object, without: object = "/nowhere", column: str | None = None) -> list[str]:
    source = source if isinstance(source, Location) else locate(str(source))
    table = list_input(source, column=column, without=locate(str(without)))
    assert table.schema == LISTING
    return table["path"].to_pylist()


def test_a_folder_gives_its_images(folder):
    """Those named as images, in and below it, sorted; no hidden files and none that systems leave."""
    assert list_paths(folder) == [f"{folder}/b.PNG", f"{folder}/more/a.jpg"]


def test_a_folder_elsewhere_gives_the_same(folder, remote):  # noqa: ARG001 -- `remote` reads it
    """On a file system that is not local."""
    assert list_paths(remote("in")) == ["in/b.PNG", "in/more/a.jpg"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("in/*.PNG", ["b.PNG"]),
        ("in/**/*.[jP]*", ["b.PNG", "more/a.jpg"]),
        ("in/*/?.jpg", ["more/a.jpg"]),
        ("in/*", ["b.PNG", "notes.txt"]),
    ],
)
def test_a_pattern_gives_the_files_that_it_matches(folder, remote, pattern, names):
    """Whatever they are called; `*` does not match a slash."""
    assert list_paths(folder.parent / pattern) == [f"{folder}/{name}" for name in names]
    assert list_paths(remote(pattern)) == [f"in/{name}" for name in names]


def test_a_file_gives_itself(folder):
    """Also if its name looks like a pattern."""
    (folder / "b.PNG").rename(folder / "b[1].PNG")
    assert list_paths(folder / "b[1].PNG") == [f"{folder}/b[1].PNG"]


def test_links_and_pipes(folder):
    """No link to a folder is followed, which might be in circles, and no pipe is opened. A broken link gets a row."""
    (folder / "more" / "up").symlink_to(folder)
    (folder / "more" / "gone.png").symlink_to("nothing.png")
    (folder / "more" / "link.png").symlink_to(folder / "b.PNG")
    os.mkfifo(folder / "more" / "pipe.png")
    assert list_paths(folder / "more") == [f"{folder}/more/{name}" for name in ("a.jpg", "gone.png", "link.png")]


def test_results_inside_the_input_are_not_input(write_parquet):
    """A job may write beside what it reads."""
    source = write_parquet("in/a.parquet", [encode()])
    (source.parent / "out").mkdir()
    shutil.copy(source, source.parent / "out" / "part-000-00000.parquet")
    assert list_paths(source.parent, source.parent / "out", "image") == [str(source)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "nothing: no such file or folder"),
        ("*.gif", r"\*.gif: no image in it; Parquet files need --column"),
        ("empty", "empty: no image in it"),
        ("a**b", "a..b: Invalid pattern"),
    ],
)
def test_an_input_without_images_is_refused(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match=said):
        list_paths(tmp_path / name)


def test_a_folder_that_may_not_be_read_is_refused(folder, monkeypatch):
    """Root may read everything, so the test forbids it."""

    def scan(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(JobError, match=f"^{folder}: Permission denied$"):
        list_paths(folder)


def test_a_name_that_is_no_unicode_is_refused(folder):
    """Parquet can't hold it."""
    os.rename(os.fsencode(folder / "b.PNG"), os.fsencode(folder) + b"/\xff.png")  # noqa: PTH104 -- bytes
    with pytest.raises(JobError, match=r"\\xff.png: a file name that is not Unicode"):
        list_paths(folder)


def test_parquet_files_give_their_row_groups(write_parquet):
    """With the number of their first row, so that a row can be found again. Empty files give none."""
    path = write_parquet("in/b.parquet", [encode()] * 5)
    write_parquet("in/a.parquet", [])
    write_parquet("in/c.pq", [encode()])
    table = list_input(locate(str(path.parent)), column="image", without=locate("/nowhere"))
    rows = [(row["path"], row["group"], row["first"], row["rows"]) for row in table.to_pylist()]
    assert rows == [(str(path), 0, 0, 2), (str(path), 1, 2, 2), (str(path), 2, 4, 1), (f"{path.parent}/c.pq", 0, 0, 1)]


def test_a_parquet_file_that_is_replaced_has_another_stamp(write_parquet):
    """Though its new rows are in row groups of the same sizes, and take as many bytes."""
    source = locate(str(write_parquet("in/a.parquet", [b"0", b"1", b"2"])))
    before = list_input(source, column="image", without=locate("/nowhere"))
    os.utime(write_parquet("in/a.parquet", [b"2", b"1", b"0"]), (1, 1))  # clocks of file systems are coarse
    after = list_input(source, column="image", without=locate("/nowhere"))
    assert before.drop_columns("stamp") == after.drop_columns("stamp")
    assert before["stamp"] != after["stamp"]


@pytest.mark.parametrize(
    ("column", "said"),
    [("picture", "no column 'picture'; it has image, id"), ("id", "column 'id' is int64, not binary")],
)
def test_a_column_that_is_not_there_is_refused(write_parquet, column, said):
    """Naming the file and its columns."""
    path = write_parquet("in/a.parquet", [encode()])
    with pytest.raises(JobError, match=f"^{path}: {said}$"):
        list_paths(path.parent, column=column)


def test_what_is_no_parquet_file_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    with pytest.raises(JobError, match=r"a\.parquet: Parquet"):
        list_paths(tmp_path, column="image")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "a.parquet")
    with pytest.raises(JobError, match="no rows in it"):
        list_paths(tmp_path, column="image")


def test_a_field_of_a_struct_is_a_column():
    """As data sets of Hugging Face have it. A column whose name has a dot is one too."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("a.b", pa.large_binary())])
    assert find_column(schema, "image.bytes") == pa.binary()
    assert find_column(schema, "a.b") == pa.large_binary()
    for name in ("image.pixels", "image.path.x", "bytes", ""):
        assert find_column(schema, name) is None
