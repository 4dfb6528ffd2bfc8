"""Behaviour of app.inference.batcher."""

import asyncio
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from app.inference.batcher import list_batch_sizes
from tests.app.inference.gate import Gate, ask, make_batcher, start

pytestmark = pytest.mark.anyio


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
    """While a batch runs, no other starts until as many items wait as are being prepared."""
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


async def test_waiting_items_run_after_the_current_batch():
    """Even if the preparation of other items takes long."""
    gate = Gate()
    batcher = make_batcher(gate, workers=2)
    with batcher.admit(), batcher.admit(), batcher.admit():
        tasks = await start(batcher, [1])
        await gate.wait_until_running()
        tasks += await start(batcher, [2])
        gate.opened.release(2)
        assert await asyncio.gather(*tasks) == [2, 4]
    batcher.close()


async def test_items_without_a_decoder_do_not_hold_back_workers():
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
    """The remaining items go into the next one."""
    gate = Gate()
    gate.opened.release(3)
    batcher = make_batcher(gate, batch_sizes=[1, 2, 4])
    assert await asyncio.gather(*(ask(batcher, item) for item in range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert gate.batches == [[0, 1, 2, 3], [4, 5], [6]]
    batcher.close()


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1]), (2, [1, 2]), (24, [1, 2, 4, 8, 16, 24]), (32, [1, 2, 4, 8, 16, 32])]
)
async def test_batch_sizes_are_powers_of_two(most, sizes):
    """And the largest size."""
    assert list_batch_sizes(most) == sizes


async def test_results_are_delivered_over_several_iterations(monkeypatch):
    """So probes run in between."""
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
