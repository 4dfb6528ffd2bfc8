"""Behaviour of app.http.cache, and of the pages, metrics and OpenAPI document in it."""

import asyncio
from types import SimpleNamespace

import pytest

from app.http.cache import Cache

pytestmark = pytest.mark.anyio


class Maker:
    """Counts its calls; can be blocked, or made to fail."""

    def __init__(self) -> None:
        self.count = 0
        self.ready = asyncio.Event()
        self.ready.set()
        self.fault: Exception | None = None

    async def __call__(self) -> int:
        """Return the next number."""
        self.count += 1
        count = self.count
        await self.ready.wait()
        if self.fault:
            raise self.fault
        return count


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The cache's clock, in seconds."""
    monkeypatch.setattr("app.http.cache.SECONDS", 1.0)
    now = [100.0]
    monkeypatch.setattr("app.http.cache.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


async def test_a_value_is_made_once_a_second(now):
    """However many requests there are."""
    cache, make = Cache(), Maker()
    assert {await cache.get("a", make) for _ in range(9)} == {1}
    now[0] += 0.9
    assert await cache.get("a", make) == 1
    now[0] += 0.2
    assert {await cache.get("a", make) for _ in range(9)} == {2}


async def test_concurrent_requests_share_one_call(now):
    """Even if it takes longer than a second. Each key has its own value."""
    cache, make, other = Cache(), Maker(), Maker()
    make.ready.clear()
    waiting = [asyncio.create_task(cache.get("a", make)) for _ in range(500)]
    assert await cache.get("b", other) == 1
    now[0] += 5
    make.ready.set()
    assert {await task for task in waiting} == {1}
    assert make.count == 1


@pytest.mark.usefixtures("now")
async def test_a_cancelled_request_does_not_cancel_the_call():
    """The other requests still get the value."""
    cache, make = Cache(), Maker()
    make.ready.clear()
    first, second = (asyncio.create_task(cache.get("a", make)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    make.ready.set()
    assert await second == 1
    assert first.cancelled()


@pytest.mark.usefixtures("now")
async def test_a_failure_is_not_cached():
    """Waiting requests get the error, and the next one tries again."""
    cache, make = Cache(), Maker()
    make.fault = ValueError("no")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await cache.get("a", make)
    make.fault = None
    assert await cache.get("a", make) == 3


async def test_the_number_of_values_is_limited(now):
    """So that clients can't fill the memory with different keys."""
    cache, make = Cache(), Maker()
    for key in range(1000):
        await cache.get(key, make)
    assert len(cache._values) == 32
    assert await cache.get(999, make) == 1000
    now[0] += 2
    await cache.get("a", make)
    assert len(cache._values) == 1
    assert not cache._making


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/metrics"])
def test_shared_answers_are_rendered_once_a_second(make_client, monkeypatch, now, path):
    """Pages, metrics and the OpenAPI document."""
    client = make_client()
    first = client.get(path)
    for name in ("app.pages.routes.fill_in", "app.telemetry.metrics.generate_latest", "app.api.openapi.json.dumps"):
        monkeypatch.setattr(name, None)
    for _ in range(3):
        again = client.get(path)
        assert (again.status_code, again.content) == (200, first.content)
    now[0] += 1
    assert client.get(path).status_code == 500
    monkeypatch.undo()
    assert client.get(path).status_code == 200
