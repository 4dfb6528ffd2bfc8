"""Behaviour of app.http.middleware: what bodies may take of the memory, all together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.errors import UploadsFullError, UploadTooLargeError
from app.http.middleware import BodyLimit

pytestmark = pytest.mark.anyio


class Service:
    """A service that takes bodies of 1,000 bytes, and 1,000 in all; it answers when `answered` is set."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.answered.set()
        self.read_bytes = 0
        self._app = BodyLimit(self._answer, max_bytes=1000, max_total_bytes=1000)

    async def _answer(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        try:
            while (await receive())["more_body"]:
                pass
        except UploadsFullError:
            await asyncio.sleep(0.01)  # the pause until the client is told
            raise
        await self.answered.wait()

    async def upload(self, *pieces: int, length: int | None = None) -> int:
        """Send a body in pieces of so many bytes; return the seconds after which to come back, 0 if it is taken."""
        left = list(pieces)

        async def receive() -> Message:
            await asyncio.sleep(0)  # the others' turn
            self.read_bytes += left[0]
            return {"type": "http.request", "body": bytes(left.pop(0)), "more_body": bool(left)}

        headers = [] if length is None else [(b"content-length", str(length).encode())]
        try:
            await self._app({"type": "http", "headers": headers}, receive, None)
        except UploadsFullError as error:
            return error.retry_after_seconds
        return 0

    async def wait_until_read(self, count: int) -> None:
        """Wait until so many bytes more than now have been read."""
        until = self.read_bytes + count
        while self.read_bytes < until:
            await asyncio.sleep(0)

    @asynccontextmanager
    async def holding(self, *pieces: int) -> AsyncIterator[None]:
        """Hold a body: it has arrived, and is not answered."""
        self.answered.clear()
        task = asyncio.create_task(self.upload(*pieces))
        await self.wait_until_read(sum(pieces))
        yield
        self.answered.set()
        assert await task == 0


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that the middleware reads; the event loop's own goes on."""
    now = [100.0]
    monkeypatch.setattr("app.http.middleware.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_bodies_are_bounded_all_together():
    """One of two that are too much together is to come back later; once both are over, there is room again."""
    service = Service()
    waits = await asyncio.gather(service.upload(400, 400), service.upload(400, 400))
    assert sorted(map(bool, waits)) == [False, True]
    assert await service.upload(900) == 0


async def test_what_was_sent_away_takes_no_room():
    """Not even until it has been told so, after a pause: else all who send at once would be sent away."""
    service = Service()
    taken = []

    async def upload() -> None:
        taken.append(await service.upload(*[100] * 5) == 0)

    await asyncio.gather(*(upload() for _ in range(10)))
    assert taken.count(True) == 2


async def test_a_body_that_can_not_fit_is_refused_before_it_is_read():
    """By its declared length; a small one is taken meanwhile."""
    service = Service()
    async with service.holding(800):
        assert await service.upload(300, length=300) > 0
        assert service.read_bytes == 800
        small = asyncio.create_task(service.upload(200, length=200))
        await service.wait_until_read(200)
    assert await small == 0


async def test_who_is_sent_away_is_told_when_there_should_be_room(clock):
    """By the rate at which bodies are answered, and each in turn: as many bytes as it brings take time."""
    service = Service()
    async with service.holding(800):
        clock[0] += 8  # 100 bytes a second
    for _ in range(20):
        async with service.holding(400):
            clock[0] += 1000  # nothing else to do: that tells how seldom they come, not how long they take
    async with service.holding(900):
        told = [await service.upload(200, length=200) for _ in range(3)]
        assert told == [9, 9, 12]
        assert await service.upload(200) == 16  # of an unknown length, as long as any
        assert await service.upload(200, length=200) == 36


async def test_who_is_sent_away_by_a_new_service_is_told_a_second():
    """It knows no rate yet, and believes in some megabytes a second."""
    service = Service()
    async with service.holding(1000):
        assert await service.upload(1, length=1) == 1


@pytest.mark.parametrize("length", [None, 1001, 5])
async def test_a_body_that_is_too_long_leaves_no_bytes_behind(length):
    """Whether it said so or not."""
    service = Service()
    with pytest.raises(UploadTooLargeError):
        await service.upload(600, 600, length=length)
    assert await service.upload(1000) == 0
