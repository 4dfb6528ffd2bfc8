"""Behaviour of app.bulk.results."""

import hashlib

import pyarrow as pa
import pytest

from app.bulk.inputs import LISTING
from app.bulk.results import Results, Shard, cut, digest_version
from app.bulk.storage import JobError, locate, write_file


def make_listing(*paths: str, rows: int = 1, stamp: str | None = None) -> pa.Table:
    count = len(paths)
    return pa.table([paths, [0] * count, [0] * count, [rows] * count, [stamp] * count], schema=LISTING)


def add(results: Results, listing: pa.Table, shard_size: int) -> None:
    results.add_images(results.find_new(listing), shard_size)


@pytest.fixture
def results(tmp_path, manifest) -> Results:
    results = Results(locate(str(tmp_path / "out")))
    results.check(manifest)
    results.begin(manifest)
    return results


def finish(results: Results, shard: Shard) -> None:
    write_file(results.folder, shard.part, b"done")


def test_images_are_cut_into_shards(results):
    """Each is a row group of the list, and is missing until its part is there."""
    add(results, make_listing("a", "b", "c", "d", "e"), 2)
    done, missing = results.list_shards()
    assert (done, missing) == ([], [Shard(0, 0, 2), Shard(0, 1, 2), Shard(0, 2, 1)])
    assert [row["path"] for row in results.read_shard(missing[1])] == ["c", "d"]
    finish(results, missing[1])
    assert results.list_shards() == ([Shard(0, 1, 2)], [Shard(0, 0, 2), Shard(0, 2, 1)])


def test_a_later_run_adds_new_images_only(results, tmp_path, manifest):
    """Shards keep their images, whatever has been added or removed, and whatever size the later run asks for."""
    add(results, make_listing("a", "c", "e"), 2)
    finish(results, Shard(0, 0, 2))
    again = Results(locate(str(tmp_path / "out")))
    again.check(manifest)
    again.begin(manifest)
    add(again, make_listing("a", "b", "c", "d", "f"), 8)
    assert again.list_shards() == ([Shard(0, 0, 2)], [Shard(0, 1, 1), Shard(1, 0, 3)])
    assert [row["path"] for row in again.read_shard(Shard(1, 0, 3))] == ["b", "d", "f"]
    add(again, make_listing("a", "b"), 8)
    assert len(again.list_shards()[1]) == 2


def test_a_parquet_file_that_has_changed_is_refused(results):
    """Its rows have numbers, which would no longer be those of the same images."""
    add(results, make_listing("a", "b", rows=10, stamp="1"), 10)
    add(results, make_listing("b", "c", rows=10, stamp="1"), 10)
    with pytest.raises(JobError, match=r"^b: has changed since OUTPUT was begun; choose another OUTPUT$"):
        results.find_new(make_listing("b", "d", rows=10, stamp="2"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "other", "version": 2}, "model tiny, version 1, not model other, version 2"),
        ({"digest": "1" * 64}, "digest 0+, not digest 1+"),
        ({"top_k": 1}, "top_k 2, not top_k 1"),
        ({"input": "elsewhere"}, "input in, not input elsewhere"),
        ({"column": "image"}, "column None, not column image"),
    ],
)
def test_results_of_another_job_are_refused(results, manifest, change, said):
    """In one line that names the difference."""
    with pytest.raises(JobError, match=f"out: has the results of {said}; choose another OUTPUT$"):
        results.check(manifest.model_copy(update=change))


def test_what_is_no_folder_of_results_is_refused(tmp_path, manifest):
    """A file, a folder with other files, and one with a manifest that can't be read."""
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "_manifest.json").write_text("{}")
    for name, said in [("file", "a file, not a folder"), ("other", "not empty"), ("broken", "validation errors")]:
        with pytest.raises(JobError, match=said) as caught:
            Results(locate(str(tmp_path / name))).check(manifest)
        assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["photo.jpg"]


def test_a_folder_that_can_not_be_made_is_refused(tmp_path, manifest):
    (tmp_path / "file").touch()
    results = Results(locate(str(tmp_path / "file" / "out")))
    with pytest.raises(JobError, match=r"out: Not a directory$"):
        results.begin(manifest)


def test_the_first_run_may_have_stopped_before_the_manifest(tmp_path, manifest):
    """What is left of it is no reason to refuse."""
    (tmp_path / "out" / "_temporary").mkdir(parents=True)
    Results(locate(str(tmp_path / "out"))).check(manifest)


def test_cleaning_leaves_the_results(results, tmp_path):
    add(results, make_listing("a"), 2)
    finish(results, Shard(0, 0, 1))
    results.clean()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["_listing-000.parquet", "_manifest.json", "part-000-00000.parquet"]


def test_an_item_is_not_cut():
    """A row group with more rows than a shard should have is a shard of its own."""
    assert list(cut([1, 1, 1], 2)) == [(0, 2), (2, 3)]
    assert list(cut([5, 1, 1, 9], 2)) == [(0, 1), (1, 3), (3, 4)]
    assert list(cut([], 2)) == []


def test_the_digest_is_that_of_the_metadata(tmp_path):
    """As `sha256sum` prints it."""
    (tmp_path / "metadata.json").write_bytes(b"{}")
    assert digest_version(tmp_path) == hashlib.sha256(b"{}").hexdigest()
