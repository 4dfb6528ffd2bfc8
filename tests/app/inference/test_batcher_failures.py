"""Behaviour of app.inference.batcher: items whose waiters have left, and items that fail."""

import asyncio
from collections.abc import Sequence

import pytest

from app.errors import InferenceError
from tests.app.inference.gate import Gate, ask, make_batcher, start

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_wrong_number_of_results_is_a_failure(count):
    """With two items and another number of results, no result can be assigned."""
    batcher = make_batcher(lambda items: [0] * (count if len(items) == 2 else 5))
    answers = await asyncio.gather(ask(batcher, 1), ask(batcher, 2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [InferenceError, InferenceError]
    batcher.close()
