"""Behaviour of app.http.cache, and of what it keeps: pages, metrics, the OpenAPI document."""

import asyncio
from types import SimpleNamespace

import pytest

from app.http.cache import Cache

pytestmark = pytest.mark.anyio


class Maker:
    """Counts how often it is asked to make something, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.count = 0
        self.ready = asyncio.Event()
        self.ready.set()
        self.fault: Exception | None = None

    async def __call__(self) -> int:
        """Make the next number."""
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


async def test_a_value_is_made_once_for_all_who_wait(now):
    """Though it takes longer than a second; each key has a value of its own."""
    cache, make, other = Cache(), Maker(), Maker()
    make.ready.clear()
    waiting = [asyncio.create_task(cache.get("a", make)) for _ in range(500)]
    assert await cache.get("b", other) == 1
    now[0] += 5
    make.ready.set()
    assert {await task for task in waiting} == {1}
    assert make.count == 1


@pytest.mark.usefixtures("now")
async def test_who_leaves_takes_nothing_away():
    """The first to ask may leave: what is made is for the others, too."""
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
async def test_a_failure_is_not_kept():
    """All who waited get it; the next one tries again."""
    cache, make = Cache(), Maker()
    make.fault = ValueError("no")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await cache.get("a", make)
    make.fault = None
    assert await cache.get("a", make) == 3


async def test_few_values_are_kept(now):
    """So that no client can fill the memory with keys of its own."""
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
def test_what_is_the_same_for_everybody_is_written_once(make_client, monkeypatch, now, path):
    """For a page, the prefix of a proxy makes a difference."""
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
