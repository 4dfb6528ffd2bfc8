"""What the tests of app.bulk share."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from app.bulk.results import Manifest
from app.bulk.storage import Location
from tests.app.fakes import encode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, in folders, and what is no image."""
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    (folder / "b.PNG").write_bytes(encode("red"))
    (folder / "more" / "a.jpg").write_bytes(encode("blue", kind="JPEG"))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(encode())
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "a.jpg").write_bytes(encode())
    return folder


@pytest.fixture
def remote(tmp_path: Path) -> Callable[[str], Location]:
    """Return a path below `tmp_path` on a file system that is not local."""
    filesystem = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    return lambda path: Location(filesystem, path, "test://")


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(input="in", column=None, model="tiny", version=1, digest="0" * 64, top_k=2)


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., Path]:
    """Write image files into the column `image` of a Parquet file below `tmp_path`."""

    def write(name: str, images: list[bytes | None], rows_per_group: int = 2) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        table = pa.table({"image": pa.array(images, pa.binary()), "id": list(range(len(images)))})
        pq.write_table(table, path, row_group_size=rows_per_group)
        return path

    return write
