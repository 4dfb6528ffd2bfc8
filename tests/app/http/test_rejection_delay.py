"""Behaviour of app.http.rejection_delay."""

import asyncio
from contextlib import ExitStack

import pytest

from app.http.rejection_delay import LONGEST_SPREAD_SECONDS, REJECTIONS_PER_SECOND, RejectionDelay
from tests.app.fakes import encode


@pytest.fixture
def delays(monkeypatch) -> list[float]:
    """The delays, recorded instead of waited for."""
    delays: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        delays.append(seconds)
        await sleep(0)

    monkeypatch.setattr("app.http.rejection_delay.asyncio.sleep", note)
    return delays


def wait_together(count: int) -> None:
    async def run() -> None:
        delay = RejectionDelay()
        await asyncio.gather(*(delay.wait() for _ in range(count)))
        await delay.wait()

    asyncio.run(run())


def test_a_few_rejections_are_spread_over_a_second(delays):
    """At random, so that clients do not retry together."""
    wait_together(50)
    assert len(set(delays)) == 51
    assert 0 <= min(delays) < 0.3
    assert 0.7 < max(delays) <= 1


def test_many_rejections_are_spread_over_a_longer_time(delays):
    """This bounds their rate. The delay of each rejection is bounded too."""
    wait_together(2000)
    *together, last = delays
    assert max(together) <= LONGEST_SPREAD_SECONDS
    assert sum(together[150:250]) / 100 == pytest.approx(200 / REJECTIONS_PER_SECOND, rel=0.3)
    assert sum(together[1000:]) / 1000 == pytest.approx(LONGEST_SPREAD_SECONDS / 2, rel=0.1)
    assert last <= 1


def test_only_rejections_for_overload_are_delayed(client, delays):
    """Other errors are answered at once."""
    client.post("/predict", files={"file": b"text"})
    assert delays == []
    with ExitStack() as places:
        for _ in range(256):
            places.enter_context(client.app.state.classifier._batcher.admit())
        assert client.post("/predict", files={"file": encode()}).status_code == 429
    assert len(delays) == 1
