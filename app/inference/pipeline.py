"""Classifies many images offline: decodes batches ahead of the model. It knows neither files nor a queue.

Threads read images and send them to the decoders, batch by batch, while the model runs and the caller uses the last
results.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.errors import ImageTooLargeError, InferenceError, ServiceError
from app.images.decoders import Decoders
from app.versions.model import Model, Scores

Source = TypeVar("Source")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """Why an image can't be classified: a message, and the API's code or `unreadable_file`."""

    error: str
    code: str


class Decoded(NamedTuple, Generic[Source]):
    """An image's pixels, (H, W, 3) uint8, or why it can't be decoded."""

    source: Source
    image: NDArray[np.uint8] | Failure


class Outcome(NamedTuple, Generic[Source]):
    """An image's scores, or why it can't be classified."""

    source: Source
    result: Scores | Failure


def classify_images(
    model: Model,
    sources: Iterable[Source],
    read: Callable[[Source], bytes],
    decoders: Decoders,
    *,
    batch_size: int,
    workers: int,
) -> Iterator[list[Outcome[Source]]]:
    """Classify images batch by batch, in order. An image that fails does not affect the others.

    Args:
        model: the model to run, up to `workers` batches at the same time.
        sources: what `read` takes; taken a few batches ahead.
        read: returns the bytes of an image file, or raises ServiceError or OSError. Runs in as many threads as
            `decoders` has processes.
        decoders: decode the files.
        batch_size: number of images in a batch.
        workers: number of batches that the model runs at the same time.
    """

    def decode_batch(batch: list[Source]) -> list[Decoded[Source]]:
        return [decode(source) for source in batch]

    def decode(source: Source) -> Decoded[Source]:
        try:
            return Decoded(source, decoders.decode_blocking(read(source), model.image_size))
        except ImageTooLargeError as error:
            return Decoded(source, _explain(error, " (limits: APP_MAX_IMAGE_PIXELS, APP_DECODE_TIMEOUT_SECONDS)"))
        except ServiceError as error:
            return Decoded(source, _explain(error))
        except OSError as error:
            return Decoded(source, Failure(error.strerror or str(error), "unreadable_file"))

    def predict(batch: list[Decoded[Source]]) -> list[Outcome[Source]]:
        images = [decoded.image for decoded in batch if not isinstance(decoded.image, Failure)]
        try:
            scores = iter(model.score(np.stack(images)) if images else ())
        except InferenceError as error:
            failure = _explain(error)
            return [Outcome(source, image if isinstance(image, Failure) else failure) for source, image in batch]
        return [Outcome(source, image if isinstance(image, Failure) else next(scores)) for source, image in batch]

    with ThreadPoolExecutor(decoders.count) as readers, ThreadPoolExecutor(workers) as runners:
        # One task per batch, because the overhead of a task is a notable part of decoding a small file.
        remaining = iter(sources)
        batches = iter(lambda: list(islice(remaining, batch_size)), [])
        decoded = _run_ahead(readers, decode_batch, batches, workers + decoders.count)
        yield from _run_ahead(runners, predict, decoded, workers)


def _explain(error: ServiceError, remedy: str = "") -> Failure:
    return Failure(f"{error}{remedy}", error.code)


def _run_ahead(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield the result of `work` on each item, in order, and start up to `ahead` items in advance."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
