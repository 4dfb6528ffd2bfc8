"""Behaviour of app.inference.retry_after."""

import heapq
import math
import random

import pytest

from app.http.rejection_delay import SHORTEST_SPREAD_SECONDS
from app.inference.retry_after import LONGEST_WAIT_SECONDS, RetryAfter


@pytest.fixture(autouse=True)
def seed() -> None:
    random.seed(0)


@pytest.fixture
def unspread(monkeypatch) -> None:
    """Set the random factor to 1, and round down."""
    monkeypatch.setattr(random, "uniform", lambda low, _: low)
    monkeypatch.setattr(random, "random", lambda: 0.0)


def work(retry_after: RetryAfter, items: int, seconds: float, *, since: float = 0) -> None:
    """Finish `items` after this many seconds of work."""
    retry_after.begin(since)
    retry_after.finish(since + seconds, items)


@pytest.mark.usefixtures("unspread")
@pytest.mark.parametrize(
    ("waiting", "seconds_per_item", "expected"),
    [(10, 0.01, 1), (250, 0.01, 3), (1, 0, 1), (10_000, 1, LONGEST_WAIT_SECONDS)],
)
def test_the_first_client_waits_for_the_queue(waiting, seconds_per_item, expected):
    """A second plus the time of the queue, at most a minute."""
    assert RetryAfter(seconds_per_item=seconds_per_item).reserve(0, waiting) == expected


@pytest.mark.usefixtures("unspread")
def test_each_client_waits_for_those_before_it():
    """Its reservation is half as long again as its items take, which leaves a third of it for new clients."""
    retry_after = RetryAfter(seconds_per_item=1)
    assert [retry_after.reserve(0, 2, items=2) for _ in range(4)] == [3, 6, 9, 12]
    assert retry_after.reserve(10, 2) == 5


def test_the_wait_is_multiplied_by_a_random_factor():
    """From 1 to 2, so that clients rejected together do not retry together."""
    times = [RetryAfter(seconds_per_item=1).reserve(0, 10) for _ in range(1000)]
    assert {min(times), max(times)} == {11, 21}


@pytest.mark.usefixtures("unspread")
def test_reservations_end_after_the_longest_wait():
    """So clients that never return do not delay the others forever."""
    retry_after = RetryAfter(seconds_per_item=1)
    for _ in range(1000):
        assert retry_after.reserve(0, 1, items=1000) <= LONGEST_WAIT_SECONDS
    assert retry_after.reserve(LONGEST_WAIT_SECONDS, 1) == 2


@pytest.mark.usefixtures("unspread")
def test_an_item_that_finishes_before_it_began_took_no_time():
    """An answer can come after its client has left and other work has begun."""
    retry_after = RetryAfter(seconds_per_item=1)
    retry_after.begin(10)
    retry_after.finish(9, 4)
    assert retry_after.reserve(10, 4) == 1


@pytest.mark.usefixtures("unspread")
def test_the_rate_is_measured():
    """It replaces the assumed one, follows the newest work, counts items, and leaves out idle time."""
    retry_after = RetryAfter(seconds_per_item=1000)
    work(retry_after, 2, 4)
    assert retry_after.reserve(4, 5) == 11
    for number in range(30):
        work(retry_after, 8, 4, since=10 * number)
    assert retry_after.reserve(300, 19) == 10
    work(retry_after, 1000, 4, since=1000)
    assert retry_after.reserve(1004, 20) == 1


@pytest.mark.parametrize(
    ("per_second", "places", "clients", "seconds"),
    [(180, 16, 900, 1), (40, 8, 80, 0.2), (1000, 256, 5000, 0.05), (20, 16, 300, 1), (4, 4, 40, 0.1)],
)
def test_clients_that_obey_retry_after_are_accepted(per_second, places, clients, seconds):
    """Of a burst, fewer than one in ten are rejected again, and the queue stays busy."""
    retry_after = RetryAfter(seconds_per_item=1 / per_second)
    arrivals = [(seconds * number / clients, number, False) for number in range(clients)]
    queue: list[float] = []  # when each of the waiting items is done
    rejected = {True: 0, False: 0}  # by whether the client was rejected before
    last = 0.0
    while arrivals:
        now, number, told = heapq.heappop(arrivals)
        queue = [done for done in queue if done > now]
        if len(queue) < places:
            last = max([now, *queue]) + 1 / per_second
            queue.append(last)
            continue
        rejected[told] += 1
        paused = now + random.uniform(0, SHORTEST_SPREAD_SECONDS)  # noqa: S311 -- see app.http.rejection_delay
        heapq.heappush(arrivals, (paused + retry_after.reserve(now, len(queue)), number, True))
    assert rejected[True] < 0.1 * (rejected[True] + rejected[False])
    assert last < math.ceil(3 * clients / per_second) + 2
