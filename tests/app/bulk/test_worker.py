"""Behaviour of app.bulk.worker."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.bulk import worker
from app.bulk.inputs import list_input
from app.bulk.results import Manifest, Results, Shard, digest_version
from app.bulk.storage import JobError, locate
from app.bulk.worker import Job, Report, Worker
from app.settings import Settings
from tests.app.fakes import encode, make_model, seal


@pytest.fixture
def settings(models: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a version's folder, which loads as a fake model."""
    version = models / "tiny" / "1"
    (version / "saved_model.pb").touch()
    seal(version)
    monkeypatch.setattr(worker, "make_loader", lambda *_, **__: lambda _: make_model())
    return Settings(model_dir=version)


@pytest.fixture
def make_job(tmp_path: Path, settings: Settings) -> Callable[..., Job]:
    """Make a job whose images are in one shard."""

    def make(source: Path, column: str | None = None) -> Job:
        digest = digest_version(settings.model_dir)
        manifest = Manifest(input=str(source), column=column, model="tiny", version=1, digest=digest, top_k=1)
        results = Results(locate(str(tmp_path / "out")))
        results.begin(manifest)
        results.add_images(list_input(locate(str(source)), column=column, without=results.folder), 100)
        return Job(str(source), str(tmp_path / "out"), manifest, settings)

    return make


def classify(job: Job, images: int) -> list[dict]:
    report = Worker(job, 1).classify(Shard(0, 0, images))
    rows = pq.read_table(job.output).to_pylist()
    assert report == Report(images, sum(row["code"] is not None for row in rows))
    return rows


def test_every_image_has_a_row(folder, make_job):
    """A damaged file and one that is gone have their codes, and are not the end of the shard."""
    (folder / "c.png").write_bytes(encode()[:60])
    job = make_job(folder)
    (folder / "more" / "a.jpg").unlink()
    rows = classify(job, 3)
    assert [(row["path"], row["label"], row["code"]) for row in rows] == [
        (f"{folder}/b.PNG", "red", None),
        (f"{folder}/c.png", None, "broken_image"),
        (f"{folder}/more/a.jpg", None, "unreadable_file"),
    ]


def test_every_row_of_parquet_has_a_row(write_parquet, make_job):
    """By the number that it has in its file."""
    path = write_parquet("in/a.parquet", [encode("red"), b"", encode("blue")])
    rows = classify(make_job(path, "image"), 3)
    assert [(row["path"], row["row"], row["label"], row["code"]) for row in rows] == [
        (str(path), 0, "red", None), (str(path), 1, None, "empty_upload"), (str(path), 2, "blue", None)
    ]  # fmt: skip


def test_a_repeated_shard_replaces_its_file(folder, make_job, tmp_path):
    """With the same rows: Ray repeats what a dead worker was at, which may be done already."""
    job = make_job(folder)
    assert classify(job, 2) == classify(job, 2)
    assert len(list((tmp_path / "out").glob("part-*"))) == 1


def test_a_worker_uses_the_cores_that_it_was_given(folder, make_job):
    """For the model and for decoding, unless settings say otherwise."""
    job = make_job(folder)
    one = Worker(job, 3)
    assert (one._workers, one._decoders.count) == (3, 3)
    set_by_hand = job.settings.model_copy(update={"inference_threads": 5, "decoders": 7})
    other = Worker(job._replace(settings=set_by_hand), 3)
    assert (other._workers, other._decoders.count) == (5, 7)


def test_another_version_on_a_worker_is_refused(folder, make_job):
    """Its rows would be another model's."""
    job = make_job(folder)
    seal(job.settings.model_dir, commit="other")
    with pytest.raises(JobError, match="has another version here than where the job was started"):
        Worker(job, 1)
