"""Behaviour of app.http.middleware: the limit on the memory of all request bodies, and the pacing of GET requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.errors import UploadsFullError, UploadTooLargeError
from app.http.middleware import BodyLimit, ReadPacing

pytestmark = pytest.mark.anyio


class Service:
    """A service with a limit of 1,000 bytes, for each body and for all; it answers when `answered` is set."""

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
            await asyncio.sleep(0.01)  # the delay of rejections
            raise
        await self.answered.wait()

    async def upload(self, *pieces: int, length: int | None = None) -> int:
        """Send a body in pieces of these sizes; return `Retry-After`, or 0 if it is accepted."""
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
        """Wait until the service has read `count` more bytes."""
        until = self.read_bytes + count
        while self.read_bytes < until:
            await asyncio.sleep(0)

    @asynccontextmanager
    async def holding(self, *pieces: int) -> AsyncIterator[None]:
        """Hold a body that was received and is not yet answered."""
        self.answered.clear()
        task = asyncio.create_task(self.upload(*pieces))
        await self.wait_until_read(sum(pieces))
        yield
        self.answered.set()
        assert await task == 0


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The middleware's clock."""
    now = [100.0]
    monkeypatch.setattr("app.http.middleware.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_the_bodies_of_all_clients_are_limited_together():
    """If two are too large together, one is rejected. When both are answered, there is room again."""
    service = Service()
    waits = await asyncio.gather(service.upload(400, 400), service.upload(400, 400))
    assert sorted(map(bool, waits)) == [False, True]
    assert await service.upload(900) == 0


async def test_a_rejected_body_takes_no_memory():
    """Not even while its rejection is delayed; otherwise all bodies of a burst would be rejected."""
    service = Service()
    taken = []

    async def upload() -> None:
        taken.append(await service.upload(*[100] * 5) == 0)

    await asyncio.gather(*(upload() for _ in range(10)))
    assert taken.count(True) == 2


async def test_a_body_that_does_not_fit_is_rejected_before_it_is_read():
    """By its declared length. Smaller bodies are accepted meanwhile."""
    service = Service()
    async with service.holding(800):
        assert await service.upload(300, length=300) > 0
        assert service.read_bytes == 800
        small = asyncio.create_task(service.upload(200, length=200))
        await service.wait_until_read(200)
    assert await small == 0


async def test_retry_after_follows_the_rate_of_finished_bytes(clock, monkeypatch):
    """Larger bodies wait longer, and each client waits for those before it."""
    monkeypatch.setattr("app.inference.retry_after.random", Mock(uniform=lambda low, _: low, random=lambda: 0))
    service = Service()
    async with service.holding(800):
        clock[0] += 8  # 100 bytes a second
    for _ in range(20):
        async with service.holding(400):
            clock[0] += 1000  # idle time, which does not count
    async with service.holding(900):
        told = [await service.upload(200, length=200) for _ in range(3)]
        assert told == [10, 13, 16]
        assert await service.upload(200) == 19  # of unknown length, so it takes as long as the longest
        assert await service.upload(200, length=200) == 34


async def test_a_new_service_assumes_a_rate_of_megabytes():
    """Per second, so the first `Retry-After` is short."""
    service = Service()
    async with service.holding(1000):
        assert await service.upload(1, length=1) <= 2


@pytest.mark.parametrize("length", [None, 1001, 5])
async def test_a_body_above_the_limit_frees_its_memory(length):
    """With a declared length or without."""
    service = Service()
    with pytest.raises(UploadTooLargeError):
        await service.upload(600, 600, length=length)
    assert await service.upload(1000) == 0


@pytest.mark.anyio
async def test_probes_and_uploads_are_not_paced():
    """Each iteration of the event loop starts a few GET requests; probes and uploads start at once."""
    started = []

    async def app(scope, receive, send):  # noqa: ARG001 -- ASGI's signature
        started.append(scope["path"])

    paced = ReadPacing(app)

    def begin(method, path):
        return asyncio.ensure_future(paced({"type": "http", "method": method, "path": path}, None, None))

    tasks = [begin("GET", "/metrics") for _ in range(100)] + [begin("GET", "/health"), begin("POST", "/predict")]
    await asyncio.sleep(0)
    assert started == ["/health", "/predict"]
    await asyncio.gather(*tasks)
    assert len(started) == 102
