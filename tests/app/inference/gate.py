"""A batcher for tests, and a model that blocks until a test opens it."""

import asyncio
import threading
from collections.abc import Callable, Sequence

from app.inference.batcher import Batcher


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
