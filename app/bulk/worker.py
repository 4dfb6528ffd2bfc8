"""Classifies shards with one model. This module does not know Ray, which runs a worker on each group of cores."""

from typing import NamedTuple

from app.bulk.reading import Image, Reader
from app.bulk.results import Manifest, Results, Shard, digest_version
from app.bulk.rows import Rows
from app.bulk.storage import JobError, locate, write_file
from app.images.decoders import Decoders
from app.inference.batcher import list_batch_sizes
from app.inference.pipeline import classify_images
from app.runtime.load import count_workers
from app.settings import Settings
from app.versions.loader import make_loader

_READS_PER_CORE = 16  # at the same time, from an object store, where each takes tens of milliseconds


class Job(NamedTuple):
    """What a worker needs to know."""

    source: str
    output: str
    manifest: Manifest
    settings: Settings
    """Without API keys. `model_dir` is the version's folder."""


class Report(NamedTuple):
    """Numbers of images of a shard: all, and those with an error."""

    images: int
    failed: int


class Worker:
    """A loaded model, and the processes that decode images for it."""

    def __init__(self, job: Job, cores: int) -> None:
        """Load and verify the model as the service does, to run on `cores` cores.

        Raises:
            JobError: this machine has another version than the one that the job was started with.
            RefusedVersionError: the version failed a check.
            OSError, MemoryError: it can't be read at the moment.
        """
        threads = job.settings.inference_threads or cores
        settings = job.settings.model_copy(update={"inference_threads": threads})
        self._manifest = job.manifest
        self._results = Results(locate(job.output))
        requests = _READS_PER_CORE * cores
        self._reader = Reader(
            locate(job.source, connections=requests),
            column=job.manifest.column,
            max_bytes=settings.max_upload_bytes,
            requests=requests,
        )
        if digest_version(settings.model_dir) != job.manifest.digest:
            raise JobError(f"{settings.model_dir} has another version here than where the job was started")
        self._batch_size = settings.max_batch_size
        self._workers = count_workers(settings.runtime, threads)
        self._model = make_loader(settings, batch_sizes=list_batch_sizes(self._batch_size))(settings.model_dir)
        self._decoders = Decoders(
            settings.decoders if "decoders" in settings.model_fields_set else cores,
            max_pixels=settings.max_image_pixels,
            max_bytes=settings.max_upload_bytes,
            timeout_seconds=settings.decode_timeout_seconds,
        )

    def classify(self, shard: Shard) -> Report:
        """Classify a shard and write its part.

        Raises:
            OSError: the list of images can't be read, or the results can't be written.
        """
        rows = Rows(self._manifest)
        images = self._reader.images(self._results.read_shard(shard))
        for batch in classify_images(
            self._model, images, Image.load, self._decoders, batch_size=self._batch_size, workers=self._workers
        ):
            for image, result in batch:
                rows.add(image.path, image.row, result)
        write_file(self._results.folder, shard.part, rows.finish())
        return Report(rows.count, rows.failed)
