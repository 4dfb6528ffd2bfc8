"""A bounded queue and the batches formed from it. Knows neither images nor models.

There is no timer: a batch is whatever came in while the last ones ran. So an idle service answers one item at once, and
a busy one fills its batches by itself. Batches run beside each other in lanes, a thread each. A lane takes its next
batch without asking the event loop, which may be busy with requests just then; the waiting items are all they share.
Items are prepared meanwhile, on the same processors, and lanes give way to that: else each batch is of one or two.
"""

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

from app.errors import InferenceError, QueueFullError
from app.inference.retry_after import Returns
from app.inference.turns import Turns
from app.telemetry.timings import note_stage

Item = TypeVar("Item")
Result = TypeVar("Result")
_Timed = tuple[Result, float, float]  # and when its batch started and finished, in seconds of the monotonic clock

logger = logging.getLogger(__name__)


def list_batch_sizes(most: int) -> list[int]:
    """Return the sizes in which to run batches of up to `most` items: powers of two, and `most`.

    A runtime makes kernels for every size that it meets, which takes time and memory. Six sizes instead of 32 cost a
    batch, in the worst case, the half of its items, which go into the next.
    """
    return sorted({2**power for power in range(most.bit_length())} | {most})


class Batcher(Generic[Item, Result]):
    """Runs items in batches, in the order in which they came.

    An item whose waiter was cancelled (its client has gone, its deadline has passed) never reaches `run`. If a batch
    fails, its items are run one by one, so that only those fail that fail alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        batch_sizes: Sequence[int],
        max_queue_size: int,
        lanes: int = 1,
        preparers: int = 0,
    ) -> None:
        """Make an idle batcher.

        Args:
            run: gives one result for each item, in order; called in threads, at most `lanes` times at once.
            batch_sizes: how many items `run` may get; 1 must be among them.
            max_queue_size: most items admitted and not yet answered.
            lanes: how many batches run beside each other.
            preparers: how many items are prepared at a time, on the processors that the lanes use.
        """
        self._run = run
        self._batch_sizes = sorted(batch_sizes)
        self._max_queue_size = max_queue_size
        self._lanes = lanes
        self._preparers = preparers
        self._admitted = 0
        self._preparing = 0  # of these, not submitted yet; only the event loop changes it
        self._lock = threading.Lock()  # over the next four
        self._closed = False
        self._waiting: OrderedDict[asyncio.Future[_Timed[Result]], Item] = OrderedDict()
        self._open = 0  # lanes whose thread works or is about to
        self._running = 0  # lanes that have a batch
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="inference")
        self._returns = Returns(max_queue_size)
        self._turns = Turns()

    @property
    def depth(self) -> int:
        """Items admitted and not yet answered."""
        return self._admitted

    def require_room(self, count: int = 1) -> None:
        """Raise QueueFullError if there is no room for `count` items.

        It names the time after which there should be room, and counts on these items to come back then.
        """
        if self._admitted + count > self._max_queue_size:
            promise = self._returns.book(time.monotonic(), self._admitted, items=count)
            raise QueueFullError(
                f"{self._admitted} images wait already; try again in {promise.retry_after_seconds} s",
                **promise._asdict(),
            )

    @contextmanager
    def admit(self) -> Iterator[Callable[[Item], Awaitable[Result]]]:
        """Hold a place while an item is prepared, waits and runs; gives the function that submits it.

        Raises:
            QueueFullError: every place is taken.
            InferenceError: (from the function) `run` failed on this item.
        """
        self.require_room()
        if not self._admitted:
            self._returns.begin(time.monotonic())
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
        """Start no other batch; those that run are not waited for."""
        with self._lock:
            dropped = list(self._waiting)
            self._waiting.clear()
            self._closed = True
            self._threads.shutdown(wait=False)
        for future in dropped:
            future.cancel()

    async def _submit(self, item: Item) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Timed[Result]] = loop.create_future()
        submitted = time.monotonic()
        with self._lock:
            self._waiting[future] = item
            lane_is_free = self._open < self._lanes
        if lane_is_free:
            loop.call_soon(self._open_lanes, loop)  # soon, not now: what is submitted in the same turn goes together
        try:
            result, started, finished = await future
        except InferenceError as error:  # told here, where the log knows whose request it is
            logger.exception("inference failed", exc_info=error.__cause__)
            raise
        finally:
            with self._lock:
                self._waiting.pop(future, None)  # still there only if this waiter was cancelled
        note_stage("queue", started - submitted)
        note_stage("inference", finished - started)
        return result

    def _open_lanes(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the lanes that are useful and not open yet; in any thread."""
        with self._lock:
            if self._closed:
                return
            count = min(self._lanes - self._open, self._count_useful_lanes() - (self._open - self._running))
            for _ in range(count):
                self._open += 1
                self._threads.submit(self._work, loop)

    def _count_useful_lanes(self) -> int:
        """Return how many of the lanes without a batch should share what waits.

        Items that are being prepared need processors too, so as many lanes leave theirs to them. Still, a lane is
        useful if as many items wait as are not submitted yet: they make a large batch; and one is, if none has a batch.
        """
        free, waiting = self._lanes - self._running, len(self._waiting)
        left = free - min(self._preparing, self._preparers)
        return min(free, waiting, max(left, waiting // max(1, self._preparing), 0 if self._running else 1))

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run batches until nothing waits. In a lane's thread."""
        while batch := self._take():
            self._open_lanes(loop)  # for what it has left to others: fewer items may be on their way by now
            started = time.monotonic()
            results = _run_each(self._run, list(batch.values()))
            with self._lock:
                self._running -= 1
            loop.call_soon_threadsafe(self._deliver, list(batch), results, started, time.monotonic())

    def _take(self) -> dict[asyncio.Future[_Timed[Result]], Item]:
        """Form a batch of a lane's share of those still waited for; if there is none, the lane closes."""
        with self._lock:
            for future in [future for future in self._waiting if future.done()]:
                del self._waiting[future]
            lanes = self._count_useful_lanes()
            share = math.ceil(len(self._waiting) / lanes) if lanes else 0
            size = max((size for size in self._batch_sizes if size <= share), default=0)
            batch = dict(self._waiting.popitem(last=False) for _ in range(size))
            if batch:
                self._running += 1
            else:
                self._open -= 1
        return batch

    def _deliver(
        self,
        futures: Sequence[asyncio.Future[_Timed[Result]]],
        results: Sequence[Result | InferenceError],
        started: float,
        finished: float,
    ) -> None:
        self._returns.finish(finished, len(futures))
        for future, result in zip(futures, results, strict=True):
            self._turns.call(partial(_resolve, future, result, started, finished))


def _resolve(
    future: asyncio.Future[_Timed[Result]], result: Result | InferenceError, started: float, finished: float
) -> None:
    if future.done():
        return
    if isinstance(result, InferenceError):
        future.set_exception(result)
    else:
        future.set_result((result, started, finished))


def _run_each(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
) -> list[Result | InferenceError]:
    """Run a batch; if it fails, run its items alone. Gives a result or an error for each."""
    try:
        results = run(items)
        if len(results) != len(items):
            raise InferenceError(f"the model gave {len(results)} results for {len(items)} images")
    except Exception as error:  # noqa: BLE001 -- whatever a runtime raises; who waits for the item tells of it
        if len(items) > 1:
            return [result for item in items for result in _run_each(run, [item])]
        failure = InferenceError("the model failed on this image; the service's log has the reason")
        failure.__cause__ = error
        return [failure]
    return list(results)
