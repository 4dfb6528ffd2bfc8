"""The folder of results: what the job is, the list of its images, and a Parquet file for each shard of them.

    _manifest.json              the input, the model and top_k: all rows are of the same
    _listing-000.parquet        the images, a row group for each shard; later runs add lists of new images
    part-000-00042.parquet      the results of the shard in row group 42 of list 000
    _temporary/                 files that are being written

A part appears when its shard is done, so a job that runs again does the shards without one. Its name depends on the
shard only, so whoever repeats a shard replaces the file with the same rows. Readers of Parquet folders skip names that
begin with an underscore.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import BaseModel, ConfigDict, ValidationError

from app.bulk.inputs import LISTING
from app.bulk.storage import TEMPORARY_FOLDER, JobError, Location, describe, write_file
from app.contract import METADATA_FILE, ModelMetadata
from app.stdio import show_name

_MANIFEST = "_manifest.json"
_LIST = re.compile(r"_listing-(\d{3,})\.parquet")


class Manifest(BaseModel):
    """What all rows have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str
    column: str | None
    model: str
    version: int
    digest: str
    """SHA-256 of the version's metadata, which has the digests of its files."""
    top_k: int

    @classmethod
    def of(cls, folder: Path, metadata: ModelMetadata, source: Location, *, column: str | None, top_k: int) -> Self:
        """Return the manifest of a job with the version in `folder`."""
        digest = digest_version(folder)
        model, version = metadata.name, metadata.version
        return cls(input=str(source), column=column, model=model, version=version, digest=digest, top_k=top_k)


class Shard(NamedTuple):
    """Images that are classified together: a row group of a list."""

    listing: int
    group: int
    rows: int

    @property
    def part(self) -> str:
        """The name of the file with its results."""
        return f"part-{self.listing:03}-{self.group:05}.parquet"


class Results:
    """Reads and writes the folder of results."""

    def __init__(self, folder: Location) -> None:
        self.folder = folder
        self._lists: dict[int, pq.ParquetFile] = {}

    def check(self, manifest: Manifest) -> None:
        """Check that the folder is absent, empty or of the same job.

        Raises:
            JobError: it is not, or it can't be read.
        """
        name = show_name(str(self.folder))
        try:
            if self.folder.filesystem.get_file_info(self.folder.path).type == fs.FileType.File:
                raise JobError(f"{name}: a file, not a folder")
            names = self._list_names()
            if _MANIFEST in names:
                with self.folder.filesystem.open_input_file(f"{self.folder.path}/{_MANIFEST}") as file:
                    found = Manifest.model_validate_json(file.read())
        except (OSError, ValidationError) as error:
            raise JobError(f"{name}: {describe(error)}") from error
        if _MANIFEST not in names:
            if names - {TEMPORARY_FOLDER}:
                raise JobError(f"{name}: not empty, and not the results of an earlier run; choose another OUTPUT")
            return
        fields = [field for field in Manifest.model_fields if getattr(found, field) != getattr(manifest, field)]
        if fields:
            was, now = (", ".join(f"{field} {getattr(one, field)}" for field in fields) for one in (found, manifest))
            raise JobError(f"{name}: has the results of {was}, not {now}; choose another OUTPUT")

    def begin(self, manifest: Manifest) -> None:
        """Make the folder and write the manifest, unless they exist.

        Raises:
            JobError: they can't be written.
        """
        try:
            self.folder.filesystem.create_dir(f"{self.folder.path}/{TEMPORARY_FOLDER}", recursive=True)
            if _MANIFEST not in self._list_names():
                write_file(self.folder, _MANIFEST, manifest.model_dump_json(indent=2).encode())
        except OSError as error:
            raise JobError(f"{show_name(str(self.folder))}: {describe(error)}") from error

    def find_new(self, listing: pa.Table) -> pa.Table:
        """Return the images that are in no list yet.

        Args:
            listing: all images of the input, with the schema `LISTING`.

        Raises:
            JobError: a Parquet file has changed since it was listed.
        """
        lists = [self._open_list(number).read() for number in self._list_numbers()]
        known = pa.concat_tables([LISTING.empty_table(), *lists])
        before = _find_stamps(known)
        for path, stamp in _find_stamps(listing).items():
            if before.get(path, stamp) != stamp:
                raise JobError(f"{show_name(path)}: has changed since OUTPUT was begun; choose another OUTPUT")
        return listing.filter(pc.invert(pc.is_in(listing["path"], known["path"])))

    def add_images(self, new: pa.Table, shard_size: int) -> None:
        """Write a list of new images, cut into shards; none if there are none.

        Args:
            new: the images, with the schema `LISTING`.
            shard_size: number of images in a shard. A row group of a Parquet file is not cut.

        Raises:
            JobError: the list can't be written.
        """
        if not new.num_rows:
            return
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, LISTING) as writer:
            for start, stop in cut(new["rows"].to_pylist(), shard_size):
                writer.write_table(new.slice(start, stop - start), row_group_size=stop - start)
        try:
            write_file(self.folder, f"_listing-{len(self._list_numbers()):03}.parquet", sink.getvalue())
        except OSError as error:
            raise JobError(f"{show_name(str(self.folder))}: {describe(error)}") from error

    def list_shards(self) -> tuple[list[Shard], list[Shard]]:
        """Return the shards that are done, and those that are missing."""
        names = self._list_names()
        done: list[Shard] = []
        missing: list[Shard] = []
        for number in self._list_numbers():
            parquet = self._open_list(number)
            rows = iter(parquet.read(columns=["rows"])["rows"].to_pylist())
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                shard = Shard(number, group, sum(islice(rows, count)))
                (done if shard.part in names else missing).append(shard)
        return done, missing

    def read_shard(self, shard: Shard) -> list[dict[str, Any]]:
        """Return the images of a shard, as rows of `LISTING`."""
        rows: list[dict[str, Any]] = self._open_list(shard.listing).read_row_group(shard.group).to_pylist()
        return rows

    def clean(self) -> None:
        """Remove what workers that died have left."""
        self.folder.filesystem.delete_dir(f"{self.folder.path}/{TEMPORARY_FOLDER}")

    def _list_names(self) -> set[str]:
        selector = fs.FileSelector(self.folder.path, allow_not_found=True)
        return {info.base_name for info in self.folder.filesystem.get_file_info(selector)}

    def _list_numbers(self) -> list[int]:
        return sorted(int(found[1]) for name in self._list_names() if (found := _LIST.fullmatch(name)))

    def _open_list(self, number: int) -> pq.ParquetFile:
        if number not in self._lists:
            path = f"{self.folder.path}/_listing-{number:03}.parquet"
            self._lists[number] = pq.ParquetFile(self.folder.filesystem.open_input_file(path))
        return self._lists[number]


def digest_version(folder: Path) -> str:
    """Return the SHA-256 of a version's metadata, which has the SHA-256 of every other file."""
    return hashlib.sha256((folder / METADATA_FILE).read_bytes()).hexdigest()


def cut(rows: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Cut items with these numbers of rows into ranges of up to `size` rows; a larger item is a range of its own."""
    start = total = 0
    for index, count in enumerate(rows):
        if total and total + count > size:
            yield start, index
            start, total = index, 0
        total += count
    if total:
        yield start, len(rows)


def _find_stamps(listing: pa.Table) -> dict[str, str]:
    """Return the stamp of each Parquet file."""
    listed = listing.filter(pc.is_valid(listing["stamp"]))
    return dict(zip(listed["path"].to_pylist(), listed["stamp"].to_pylist(), strict=True))
