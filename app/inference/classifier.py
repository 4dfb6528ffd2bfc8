"""Classifies images with decoders, a batcher and the model store. Knows no HTTP."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.errors import EmptyUploadError, ImageError, ServiceError
from app.images.decoders import Decoders
from app.inference.batcher import Batcher
from app.telemetry.timings import note_model, note_stage
from app.versions.model import Model, Scores
from app.versions.store import ModelStore

Result = TypeVar("Result")


class Classifier:
    """Classifies images with the model that serves when their batch runs."""

    def __init__(
        self,
        store: ModelStore,
        decoders: Decoders,
        *,
        batch_sizes: Sequence[int],
        max_queue_size: int,
        workers: int = 1,
        observe_batch: Callable[[int], None] = lambda _: None,
        observe_typicality: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Make an idle classifier; it closes `decoders`.

        `observe_batch` is called with the size of each batch, `observe_typicality` with the typicality of each image,
        both in an inference thread. For `batch_sizes`, `max_queue_size` and `workers` see `app.inference.batcher`.
        """
        self.store = store
        self._decoders = decoders
        self._observe_batch = observe_batch
        self._observe_typicality = observe_typicality
        self._threads = ThreadPoolExecutor(decoders.count, thread_name_prefix="decode")
        self._batcher: Batcher[NDArray[np.uint8], Scores] = Batcher(
            self._predict,
            batch_sizes=batch_sizes,
            max_queue_size=max_queue_size,
            workers=workers,
            decoders=decoders.count,
        )

    def require_ready(self) -> Model:
        """Return the model that would serve a request now. Call it before reading a body; it is cheap.

        Raises:
            NotReadyError: no model is loaded.
            QueueFullError: the queue is full.
        """
        model = self.store.require_model()
        self._batcher.require_room()
        return model

    async def classify(self, data: bytes) -> Scores:
        """Classify one image file. If cancelled in time, the image never reaches the model.

        Raises:
            ImageError, EmptyUploadError: `data` can't be decoded.
            NotReadyError, QueueFullError: see `require_ready`.
            InferenceError: the model failed on this image.
        """
        size = self.store.require_model().image_size
        with self._batcher.admit() as submit:
            started = time.monotonic()
            image = await self._decoders.decode(data, size)
            note_stage("decode", time.monotonic() - started)
            scores = await submit(image)
        note_model(scores.model.metadata.name, scores.model.metadata.version)
        return scores

    @property
    def depth(self) -> int:
        """Number of images accepted and not yet answered."""
        return self._batcher.depth

    async def run_decoding(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a thread, so that it does not block the event loop.

        If cancelled before it runs, `run` stays in the executor's queue, but the list that it holds is emptied, so that
        the upload is freed.
        """
        held = [work]

        def run() -> Result:
            try:
                return held.pop()()
            except ServiceError as error:
                # Its frames hold the upload and what has been parsed of it, until the event loop sends the answer.
                error.__context__ = None
                raise error.with_traceback(None) from None

        started = time.monotonic()
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, run)
        finally:
            held.clear()
        note_stage("decode", time.monotonic() - started)
        return result

    async def classify_all(self, images: Sequence[bytes | NDArray[np.uint8]]) -> list[Scores]:
        """Classify N ≥ 1 images: all with one version, or none.

        Args:
            images: image files, or pixels (H, W, 3) of the model's own size.

        Raises:
            ImageError, EmptyUploadError: a file can't be decoded; the message has its index.
            QueueFullError: there is no room for all of them.
            NotReadyError, InferenceError: see `classify`.
        """
        while True:
            self._batcher.require_room(len(images))
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._classify_one(*numbered)) for numbered in enumerate(images)]
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from failures
            scores = [task.result() for task in tasks]
            if all(score.model is scores[0].model for score in scores):  # otherwise another version took over
                note_model(scores[0].model.metadata.name, scores[0].model.metadata.version)
                return scores

    def close(self) -> None:
        """Stop the decoders and start no more work. It does not wait for running work, which may never end."""
        self._decoders.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    async def _classify_one(self, index: int, image: bytes | NDArray[np.uint8]) -> Scores:
        if isinstance(image, bytes):
            try:
                return await self.classify(image)
            except (ImageError, EmptyUploadError) as error:
                raise type(error)(f"image {index}: {error}") from error
        with self._batcher.admit() as submit:
            return await submit(image)

    def _predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Scores]:
        self._observe_batch(len(images))
        model = self.store.require_model()  # once per batch, so that a swap never splits one
        # `alone` if no other image is waiting or being decoded.
        scores = model.score(np.stack(images), alone=self._batcher.depth == 1)
        for score in scores:
            if score.typicality is not None:
                self._observe_typicality(score.typicality)
        return scores
