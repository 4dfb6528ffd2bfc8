"""Behaviour of app.inference.batcher: the limit of the queue, and `Retry-After`."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from unittest.mock import Mock

import pytest

from app.errors import QueueFullError
from tests.app.inference.gate import ask, make_batcher, start

pytestmark = pytest.mark.anyio


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


async def test_idle_time_does_not_count_for_the_rate():
    """Idle time is not time spent on items."""
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
