"""Behaviour of app.inference.batcher."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from unittest.mock import Mock

import pytest

from app.errors import InferenceError, QueueFullError
from app.inference.batcher import Batcher, list_batch_sizes

pytestmark = pytest.mark.anyio


class Gate:
    """A `run` that doubles numbers, records its batches, and blocks until opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.opened = threading.Semaphore(0)
        self.reached = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.reached.release()
        assert self.opened.acquire(timeout=10)
        return [2 * item for item in items]

    async def wait_until_running(self) -> None:
        assert await asyncio.to_thread(self.reached.acquire, timeout=10)


def make_batcher(
    run: Callable,
    batch_sizes: Sequence[int] = (1, 2, 3, 4),
    max_queue_size: int = 64,
    workers: int = 1,
    decoders: int = 2,
) -> Batcher[int, int]:
    return Batcher(run, batch_sizes=batch_sizes, max_queue_size=max_queue_size, workers=workers, decoders=decoders)


async def ask(batcher: Batcher[int, int], item: int) -> int:
    with batcher.admit() as submit:
        return await submit(item)


async def start(batcher: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(ask(batcher, item)) for item in items]
    await asyncio.sleep(0.01)
    return tasks


async def test_an_idle_batcher_runs_one_item_at_once():
    """It does not wait for a batch to fill."""
    batches = []
    batcher = make_batcher(lambda items: batches.append(list(items)) or items)
    started = time.monotonic()
    assert await ask(batcher, 7) == 7
    assert batches == [[7]]
    assert time.monotonic() - started < 1
    batcher.close()


async def test_items_that_arrive_during_a_batch_form_the_next():
    """Batches fill up to the largest size, in order of arrival, and each waiter gets its own result."""
    gate = Gate()
    batcher = make_batcher(gate)
    tasks = await start(batcher, [0])
    await gate.wait_until_running()
    tasks += await start(batcher, [1, 2, 3, 4, 5, 6])
    gate.opened.release(3)
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10, 12]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]
    batcher.close()


async def test_items_submitted_in_one_iteration_share_a_batch():
    """The images of one request form one batch, even in an idle batcher."""
    gate = Gate()
    gate.opened.release(1)
    batcher = make_batcher(gate)
    assert await asyncio.gather(*(ask(batcher, item) for item in (1, 2, 3))) == [2, 4, 6]
    assert gate.batches == [[1, 2, 3]]
    batcher.close()


async def test_workers_share_the_waiting_items():
    """Two batches run in parallel, each with half of the items; a third one waits for a worker."""
    gate = Gate()
    batcher = make_batcher(gate, workers=2)
    tasks = await start(batcher, [1, 2, 3, 4])
    await gate.wait_until_running()
    await gate.wait_until_running()
    tasks += await start(batcher, [5])
    assert sorted(gate.batches) == [[1, 2], [3, 4]]
    gate.opened.release(3)
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert gate.batches[2:] == [[5]]
    batcher.close()


async def test_a_free_worker_takes_the_next_item():
    """A single item does not wait for the batch before it."""
    gate = Gate()
    batcher = make_batcher(gate, workers=2)
    tasks = await start(batcher, [1])
    await gate.wait_until_running()
    tasks += await start(batcher, [2])
    await gate.wait_until_running()
    assert gate.batches == [[1], [2]]
    gate.opened.release(2)
    assert await asyncio.gather(*tasks) == [2, 4]
    batcher.close()


async def test_workers_hold_back_while_items_are_prepared():
    """Beside a running batch, no other starts until as many items wait as are being prepared."""
    gate = Gate()
    batcher = make_batcher(gate, workers=2)
    tasks = await start(batcher, [1])
    await gate.wait_until_running()
    with batcher.admit(), batcher.admit():
        tasks += await start(batcher, [2])
        assert gate.batches == [[1]]
        tasks += await start(batcher, [3])
        await gate.wait_until_running()
        assert gate.batches == [[1], [2, 3]]
        gate.opened.release(2)
        assert await asyncio.gather(*tasks) == [2, 4, 6]
    batcher.close()


async def test_items_that_wait_beside_preparation_run_after_the_current_batch():
    """However long the preparation of the others takes."""
    gate = Gate()
    batcher = make_batcher(gate, workers=2)
    with batcher.admit(), batcher.admit(), batcher.admit():
        tasks = await start(batcher, [1])
        await gate.wait_until_running()
        tasks += await start(batcher, [2])
        gate.opened.release(2)
        assert await asyncio.gather(*tasks) == [2, 4]
    batcher.close()


async def test_items_that_wait_for_a_decoder_hold_back_no_worker():
    """With two decoders, the other processors run the waiting items immediately."""
    gate = Gate()
    batcher = make_batcher(gate, workers=4, decoders=2)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(batcher.admit())
        tasks = []
        for item in (1, 2):
            tasks += await start(batcher, [item])
            await gate.wait_until_running()
        assert gate.batches == [[1], [2]]
        gate.opened.release(2)
        assert await asyncio.gather(*tasks) == [2, 4]
    batcher.close()


async def test_items_that_fail_in_preparation_free_the_workers():
    """If those images are broken, the waiting items wait for one batch, not for several."""
    gate = Gate()
    batcher = make_batcher(gate, workers=3, decoders=3)
    tasks = await start(batcher, [1])
    await gate.wait_until_running()
    with batcher.admit(), batcher.admit(), batcher.admit():
        tasks += await start(batcher, [2, 3])
        assert gate.batches == [[1]]
    gate.opened.release(1)
    await gate.wait_until_running()
    await gate.wait_until_running()
    assert sorted(gate.batches) == [[1], [2], [3]]
    gate.opened.release(2)
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    batcher.close()


async def test_batches_have_the_given_sizes_only():
    """The rest goes into the next one."""
    gate = Gate()
    gate.opened.release(3)
    batcher = make_batcher(gate, batch_sizes=[1, 2, 4])
    assert await asyncio.gather(*(ask(batcher, item) for item in range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert gate.batches == [[0, 1, 2, 3], [4, 5], [6]]
    batcher.close()


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1]), (2, [1, 2]), (24, [1, 2, 4, 8, 16, 24]), (32, [1, 2, 4, 8, 16, 32])]
)
async def test_sizes_are_few(most, sizes):
    """Powers of two, and the largest."""
    assert list_batch_sizes(most) == sizes


async def test_an_item_whose_waiter_left_never_runs():
    """It is dropped before its batch is formed, and the others get their own results."""
    gate = Gate()
    batcher = make_batcher(gate)
    tasks = await start(batcher, [0])
    await gate.wait_until_running()
    tasks += await start(batcher, [1, 2, 3])
    tasks[2].cancel()
    gate.opened.release(2)
    assert await asyncio.gather(tasks[0], tasks[1], tasks[3]) == [0, 2, 6]
    assert gate.batches == [[0], [1, 3]]
    assert batcher.depth == 0
    batcher.close()


async def test_an_item_whose_waiter_leaves_at_the_last_moment_never_runs():
    """A batch can be formed between a cancellation and its effect on the waiter."""
    gate = Gate()
    gate.opened.release(1)
    batcher = make_batcher(gate)
    tasks = [asyncio.create_task(ask(batcher, item)) for item in (1, 2)]
    asyncio.get_running_loop().call_soon(tasks[0].cancel)
    assert await tasks[1] == 4
    assert gate.batches == [[2]]
    batcher.close()


async def test_a_cancellation_during_a_batch_affects_no_other_item():
    """The others in the batch get their results."""
    gate = Gate()
    batcher = make_batcher(gate)
    tasks = await start(batcher, [0, 1, 2])
    await gate.wait_until_running()
    tasks[1].cancel()
    await asyncio.sleep(0.01)
    gate.opened.release(1)
    assert await asyncio.gather(tasks[0], tasks[2]) == [0, 4]
    gate.opened.release(1)
    assert await ask(batcher, 5) == 10
    batcher.close()


async def test_a_failing_item_fails_alone():
    """The batch runs again item by item, and only the bad item fails."""

    def run(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise ValueError("two")
        return list(items)

    batcher = make_batcher(run)
    answers = await asyncio.gather(*(ask(batcher, item) for item in (1, 2, 3)), return_exceptions=True)
    assert (answers[0], answers[2]) == (1, 3)
    assert isinstance(answers[1], InferenceError)
    batcher.close()


async def test_the_results_of_batches_are_given_over_several_iterations(monkeypatch):
    """So a probe does not wait for all of them."""
    monkeypatch.setattr("app.inference.batcher._RESULTS_PER_ITERATION", 4)
    gate = Gate()
    batcher = make_batcher(gate, batch_sizes=[1, 16], workers=2)
    iterations, answered = 0, []

    async def count() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    async def note(item: int) -> None:
        assert await ask(batcher, item) == 2 * item
        answered.append(iterations)

    tasks = [asyncio.create_task(note(item)) for item in range(32)]
    await gate.wait_until_running()
    await gate.wait_until_running()
    counting = asyncio.create_task(count())
    gate.opened.release(2)
    await asyncio.gather(*tasks)
    counting.cancel()
    assert [len(batch) for batch in gate.batches] == [16, 16]
    assert max(Counter(answered).values()) == 4
    batcher.close()


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_wrong_number_of_results_is_a_failure(count):
    """With two items and another number of results, no result can be assigned."""
    batcher = make_batcher(lambda items: [0] * (count if len(items) == 2 else 5))
    answers = await asyncio.gather(ask(batcher, 1), ask(batcher, 2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [InferenceError, InferenceError]
    batcher.close()


async def test_a_full_queue_says_when_to_retry(monkeypatch):
    """`Retry-After` is a second plus the depth of the queue divided by the measured rate."""
    monkeypatch.setattr("app.inference.retry_after.random", Mock(uniform=lambda low, _: low, random=lambda: 0))

    def run(items: Sequence[int]) -> Sequence[int]:
        time.sleep(0.5)
        return items

    batcher = make_batcher(run, batch_sizes=[1], max_queue_size=5)
    await ask(batcher, 0)
    tasks = await start(batcher, range(5))
    with pytest.raises(QueueFullError, match="5 images are waiting") as error:
        await ask(batcher, 9)
    assert error.value.retry_after_seconds == 3  # 1 + 5 items of half a second
    with pytest.raises(QueueFullError):
        batcher.require_room()
    tasks[4].cancel()
    await asyncio.sleep(0.01)
    batcher.require_room()
    for task in tasks:
        task.cancel()
    batcher.close()


async def test_a_place_is_held_while_its_item_is_prepared():
    """Images being decoded count, or they would pile up before the queue."""
    batcher = make_batcher(lambda items: items, max_queue_size=1)
    with batcher.admit() as submit:
        with pytest.raises(QueueFullError):
            await ask(batcher, 2)
        assert await submit(1) == 1
    assert await ask(batcher, 2) == 2
    batcher.close()


async def test_items_are_measured_while_there_is_work_and_not_while_idle():
    """Idle time does not count as time for the items."""
    batcher = make_batcher(lambda items: items, max_queue_size=2)
    await ask(batcher, 1)
    await asyncio.sleep(1.2)
    await ask(batcher, 1)
    with batcher.admit(), batcher.admit(), pytest.raises(QueueFullError) as error:
        batcher.require_room()
    assert error.value.retry_after_seconds <= 2
    batcher.close()


async def test_rejected_clients_are_told_different_times():
    """Told the same time, they would all retry at once, and the queue has room for few of them."""

    def run(items: Sequence[int]) -> Sequence[int]:
        time.sleep(0.4)
        return items

    batcher = make_batcher(run, batch_sizes=[1], max_queue_size=2)
    await ask(batcher, 0)
    tasks = await start(batcher, range(2))
    waits = []
    for _ in range(200):
        with pytest.raises(QueueFullError) as error:
            batcher.require_room()
        waits.append(error.value.retry_after_seconds)
    assert max(Counter(waits[:50]).values()) < 10
    assert max(waits) == 60
    await asyncio.gather(*tasks)
    batcher.close()
