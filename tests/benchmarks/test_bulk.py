"""The speed and memory of `app.bulk`. The command itself needs Ray, and is run by hand."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import bulk
from benchmarks.bulk import Costs, Memory, Round
from benchmarks.pictures import MEDIUM, SMALL


def test_the_tables_have_what_was_measured():
    """Medians of the rounds, and the time on more cores computed from them: only listing and the start stay."""
    rounds = [Round(900, 1000, 6, 1), Round(1000, 1000, 8, 2), Round(800, 1000, 7, 3)]
    costs = Costs(list_ms=0.01, read_ms=0.05, decode_ms=0.2, model_ms=0.9, file_bytes=2500)
    text = bulk.render({"small": rounds}, {"small": costs}, [Memory(20_000, 800, 20), Memory(200_000, 810, 140)], 2)
    lines = text.splitlines()
    assert "| small | 900 | 1000 | 0.90 | 7.0 s | 2.0 s |" in lines
    assert "| small | 0.010 ms | 0.050 ms | 0.200 ms | 0.900 ms | 2.5 kB |" in lines
    assert "| 200,000 | 810 MiB | 140 s |" in lines
    assert "| small | 1 | 7 s | 100 s | 6.1 h | 6.1 h | 1.1 MB/s | the model |" in lines
    assert "| small | 16 | 7 s | 100 s | 23 min | 25 min | 18.2 MB/s | the model |" in lines
    assert "| small | 128 | 7 s | 100 s | 172 s | 279 s | 145.3 MB/s | listing |" in lines


def test_a_list_of_the_images_is_written_elsewhere(tmp_path):
    """As the command writes it into OUTPUT; the folder stays as it is for the next measurement."""
    bulk.write_folder(tmp_path / "pictures", SMALL, 3)
    bulk.list_images(tmp_path / "pictures")
    assert len(list(tmp_path.rglob("*"))) == 4


def describe(file: Path) -> tuple[str, tuple[int, int]]:
    with Image.open(file) as image:
        return image.format, image.size


def test_the_images_are_of_the_kind_that_is_named(tmp_path):
    """Many names share the content of a few files, to spare the disk."""
    bulk.write_folder(tmp_path / "small", SMALL, 10)
    bulk.write_folder(tmp_path / "photos", MEDIUM, 2)
    files = sorted((tmp_path / "small").iterdir())
    assert len(files) == 10
    assert {describe(file) for file in files} == {("PNG", (32, 32))}
    assert len({file.stat().st_ino for file in files}) < 10
    assert describe(tmp_path / "photos" / "000000.jpeg") == ("JPEG", (640, 480))


def test_the_rows_are_in_files_of_bounded_size(tmp_path, monkeypatch):
    """So that the number of rows changes nothing else."""
    monkeypatch.setattr(bulk, "ROWS_PER_FILE", 10)
    monkeypatch.setattr(bulk, "ROWS_PER_GROUP", 4)
    bulk.write_parquet(tmp_path / "rows", SMALL, 25)
    files = [pq.ParquetFile(path) for path in sorted((tmp_path / "rows").iterdir())]
    assert [file.metadata.num_rows for file in files] == [10, 10, 5]
    assert files[0].num_row_groups == 3


def test_memory_is_that_of_all_processes():
    """And nothing if the process has ended."""
    assert bulk.read_memory(os.getpid()) > 2**20
    assert bulk.read_memory(2**22 + 1) == 0


def test_the_other_command_must_classify_every_image(tmp_path):
    """Fewer lines than images are an error."""
    bulk.write_folder(tmp_path / "pictures", SMALL, 3)
    with pytest.raises(SystemExit, match="4 images gave 3 lines"):
        bulk.time_classify(tmp_path / "pictures", 4)
