"""A bounded queue, and dynamic batching without a timer. It knows neither images nor models.

A batch is whatever was queued while the last batches ran. So an idle service answers a single item immediately, and a
busy one fills its batches by itself. Batches run in parallel inference workers, one thread each. A worker takes its
next batch without a round trip through the event loop, which may be busy with requests. Items are prepared (decoded)
on the same processors, so workers hold back while many are being prepared; otherwise every batch would have one or two
items.
"""

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from app.errors import InferenceError, QueueFullError
from app.inference.retry_after import RetryAfter
from app.telemetry.timings import note_stage

Item = TypeVar("Item")
Result = TypeVar("Result")
_Timed = tuple[Result, float, float]  # with the monotonic times at which its batch started and finished
_Delivery = tuple[asyncio.Future[_Timed[Result]], Result | InferenceError, float, float, int]

# A small image takes the event loop about half a millisecond, from its request to its answer.
_RESULTS_PER_ITERATION = 8

logger = logging.getLogger(__name__)


def list_batch_sizes(most: int) -> list[int]:
    """Return the batch sizes to run: the powers of two below `most`, and `most`.

    A runtime compiles kernels for each size that it runs, which costs time and memory. With six sizes instead of 32, a
    batch leaves at most half of the waiting items to the next one.
    """
    return sorted({2**power for power in range(most.bit_length())} | {most})


class Batcher(Generic[Item, Result]):
    """Runs items in batches, in order of arrival.

    An item whose waiter was cancelled (the client disconnected, the deadline passed) never reaches `run`. If a batch
    fails, its items run one by one, so that one bad item fails alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        batch_sizes: Sequence[int],
        max_queue_size: int,
        workers: int = 1,
        decoders: int = 0,
    ) -> None:
        """Create an idle batcher.

        Args:
            run: returns one result for each item, in order; called in threads, at most `workers` calls at a time.
            batch_sizes: allowed numbers of items for `run`; 1 must be among them.
            max_queue_size: maximum number of items admitted and not yet answered.
            workers: maximum number of batches that run in parallel.
            decoders: how many items can be prepared at a time, on the processors that the workers use.
        """
        self._run = run
        self._batch_sizes = sorted(batch_sizes)
        self._max_queue_size = max_queue_size
        self._workers = workers
        self._decoders = decoders
        self._admitted = 0
        self._preparing = 0  # admitted and not submitted yet; changed by the event loop only
        self._retry_after = RetryAfter()
        self._lock = threading.Lock()  # protects the next four
        self._waiting: OrderedDict[asyncio.Future[_Timed[Result]], Item] = OrderedDict()
        self._open = 0  # workers whose thread is running or about to run
        self._running = 0  # workers with a batch
        self._results: deque[_Delivery[Result]] = deque()  # the last of a batch has its size, the others 0
        self._openings: SimpleQueue[asyncio.AbstractEventLoop | None] = SimpleQueue()
        for number in range(workers):
            threading.Thread(target=self._serve, name=f"inference_{number}", daemon=True).start()

    @property
    def depth(self) -> int:
        """Items admitted and not yet answered."""
        return self._admitted

    def require_room(self, count: int = 1) -> None:
        """Check that there is room for `count` items.

        Raises:
            QueueFullError: there is no room; the error has the time after which to retry.
        """
        if self._admitted + count > self._max_queue_size:
            seconds = self._retry_after.reserve(time.monotonic(), self._admitted, items=count)
            raise QueueFullError(
                f"{self._admitted} images are waiting already; try again in {seconds} s", retry_after_seconds=seconds
            )

    @contextmanager
    def admit(self) -> Iterator[Callable[[Item], Awaitable[Result]]]:
        """Hold a place in the queue while an item is prepared, waits and runs; yields the function that submits it.

        Raises:
            QueueFullError: the queue is full.
            InferenceError: (from the function) `run` failed on this item.
        """
        self.require_room()
        if not self._admitted:
            self._retry_after.begin(time.monotonic())
        self._admitted += 1
        self._preparing += 1
        submitted = False

        def submit(item: Item) -> Awaitable[Result]:
            nonlocal submitted
            submitted = True
            self._preparing -= 1
            return self._submit(item)

        try:
            yield submit
        finally:
            self._admitted -= 1
            if not submitted:
                self._preparing -= 1

    def close(self) -> None:
        """Cancel the waiting items. It does not wait for running batches."""
        with self._lock:
            dropped = list(self._waiting)
            self._waiting.clear()
        for future in dropped:
            future.cancel()
        for _ in range(self._workers):
            self._openings.put(None)

    async def _submit(self, item: Item) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Timed[Result]] = loop.create_future()
        submitted = time.monotonic()
        with self._lock:
            self._waiting[future] = item
            worker_is_free = self._open < self._workers
        if worker_is_free:
            loop.call_soon(self._open_workers, loop)  # not now, so that items submitted in one iteration share a batch
        try:
            result, started, finished = await future
        except InferenceError as error:  # logged here, in the context of the request
            logger.exception("inference failed", exc_info=error.__cause__)
            raise
        except asyncio.CancelledError:
            with self._lock:
                self._waiting.pop(future, None)
            raise
        note_stage("queue", started - submitted)
        note_stage("inference", finished - started)
        return result

    def _open_workers(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the useful workers that are not open yet. Called in any thread."""
        with self._lock:
            count = min(self._workers - self._open, self._count_useful_workers() - (self._open - self._running))
            for _ in range(count):
                self._open += 1
                self._openings.put(loop)

    def _count_useful_workers(self) -> int:
        """Return how many of the workers without a batch should share the waiting items.

        Items being prepared need processors too, so one worker stays free for each. But a worker is useful anyway if as
        many items wait as are still to be submitted, which makes a large batch, and one is useful if no worker has a
        batch.
        """
        free, waiting = self._workers - self._running, len(self._waiting)
        left = free - min(self._preparing, self._decoders)
        return min(free, waiting, max(left, waiting // max(1, self._preparing), 0 if self._running else 1))

    def _serve(self) -> None:
        """Work whenever the worker is opened. Called in each worker's thread."""
        while loop := self._openings.get():
            self._work(loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run batches until nothing waits."""
        while batch := self._take():
            self._open_workers(loop)  # for the items that this batch left
            started = time.monotonic()
            results = _run_each(self._run, list(batch.values()))
            finished = time.monotonic()
            sizes = [0] * (len(batch) - 1) + [len(batch)]
            with self._lock:
                self._running -= 1
                is_first = not self._results
                self._results += [
                    (future, result, started, finished, size)
                    for future, result, size in zip(batch, results, sizes, strict=True)
                ]
            if is_first:
                with suppress(RuntimeError):  # the event loop has closed
                    loop.call_soon_threadsafe(self._resolve, loop)

    def _take(self) -> dict[asyncio.Future[_Timed[Result]], Item]:
        """Form a batch from a worker's share of the waiting items; if it is empty, the worker closes."""
        with self._lock:
            for future in [future for future in self._waiting if future.done()]:
                del self._waiting[future]
            workers = self._count_useful_workers()
            share = math.ceil(len(self._waiting) / workers) if workers else 0
            size = max((size for size in self._batch_sizes if size <= share), default=0)
            batch = dict(self._waiting.popitem(last=False) for _ in range(size))
            if batch:
                self._running += 1
            else:
                self._open -= 1
        return batch

    def _resolve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give some waiters their results, and others in the next iteration, so that probes get in between."""
        with self._lock:
            results = [self._results.popleft() for _ in range(min(_RESULTS_PER_ITERATION, len(self._results)))]
            if self._results:
                loop.call_soon(self._resolve, loop)
        for future, result, started, finished, size in results:
            if size:
                self._retry_after.finish(finished, size)
            if future.done():
                continue
            if isinstance(result, InferenceError):
                future.set_exception(result)
            else:
                future.set_result((result, started, finished))


def _run_each(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
) -> list[Result | InferenceError]:
    """Run a batch, and its items one by one if it fails; return a result or an error for each."""
    try:
        results = run(items)
        if len(results) != len(items):
            raise InferenceError(f"the model returned {len(results)} results for {len(items)} images")
    except Exception as error:  # noqa: BLE001 -- runtimes raise anything; the waiter logs it
        if len(items) > 1:
            return [result for item in items for result in _run_each(run, [item])]
        failure = InferenceError("the model failed on this image; the service's log has the reason")
        failure.__cause__ = error
        return [failure]
    return list(results)
