"""Behaviour of app.inference.retry_after."""

from collections import Counter

import pytest

from app.inference.retry_after import LONGEST_PAUSE_SECONDS, LONGEST_WAIT_SECONDS, REFUSALS_PER_SECOND, Returns


def work(returns: Returns, items: int, seconds: float, *, since: float = 0) -> None:
    """Do so many items in so many seconds, as a batch."""
    returns.begin(since)
    returns.finish(since + seconds, items)


def test_a_burst_comes_back_as_a_stream():
    """Ten seconds' work that comes in one returns at a rate that leaves room, whatever whole seconds allow."""
    rate = 200.0
    returns = Returns(16, seconds_per_item=1 / rate)
    backs = []
    for number in range(int(10 * rate)):
        now = number / (10 * rate)
        promise = returns.book(now, 16)
        backs.append(now + promise.pause_seconds + promise.retry_after_seconds)
    per_moment = Counter(int(back * 5) for back in backs)  # fifths of a second
    assert max(per_moment.values()) <= rate / 5
    assert max(backs) < 30


@pytest.mark.parametrize(
    ("waiting", "seconds_per_item", "told"),
    [(10, 0.01, 1), (250, 0.01, 3), (1, 0, 1), (10_000, 1, LONGEST_WAIT_SECONDS)],
)
def test_the_first_is_told_the_time_of_the_queue(waiting, seconds_per_item, told):
    """At least a second, and never more than a minute."""
    returns = Returns(16, seconds_per_item=seconds_per_item)
    assert returns.book(0, waiting).retry_after_seconds == told


def test_slow_work_takes_several_moments():
    """Of a model that takes half a second for an image, no two returns are promised in one second."""
    returns = Returns(1, seconds_per_item=0.5)
    assert [returns.book(100, 2).retry_after_seconds for _ in range(5)] == [1, 2, 3, 4, 5]
    assert returns.book(100.2, 2).retry_after_seconds > 5


def test_a_client_with_much_takes_the_time_of_many():
    """Ten images that come together are promised ten images' time."""
    returns = Returns(16, seconds_per_item=0.1)
    assert [returns.book(0, 10, items=10).retry_after_seconds for _ in range(3)] == [1, 3, 5]


def test_those_who_come_may_wait_where_there_is_room():
    """Of twelve places they fill half; with whole seconds most of the time would be nobody's, otherwise."""
    returns = Returns(12, seconds_per_item=0.5)
    assert [returns.book(0, 2).retry_after_seconds for _ in range(6)] == [1, 1, 1, 1, 2, 3]


def test_one_client_takes_no_more_than_a_minute_of_the_book():
    """However slow things were, and however much it brings: the book would fill the memory."""
    returns = Returns(16 * 2**20)
    work(returns, 1, 30)
    assert returns.book(30, 1, items=16 * 2**20).retry_after_seconds == 30
    assert len(returns._busy) <= LONGEST_WAIT_SECONDS * 10 + 1


def test_what_was_done_before_it_was_begun_took_no_time():
    """An answer may come after its client has gone and other work has begun."""
    returns = Returns(16, seconds_per_item=1)
    returns.begin(10)
    returns.finish(9, 4)
    assert returns.book(10, 4).retry_after_seconds == 1


def test_what_is_done_tells_the_rate():
    """Not what was believed before; of late above all; in proportion to the items; and not the time without work."""
    returns = Returns(16, seconds_per_item=1000)
    work(returns, 2, 4)
    assert returns.book(4, 5).retry_after_seconds == 10
    for number in range(30):
        work(returns, 8, 4, since=10 * number)
    assert returns.book(300, 19).retry_after_seconds == 10
    work(returns, 1000, 4, since=300)
    assert returns.book(304, 20).retry_after_seconds == 1


def test_refusals_are_told_at_a_pace():
    """The first at once, a flood one after another, and nobody much later than the longest pause."""
    returns = Returns(16)
    pauses = [returns.book(10.0, 1).pause_seconds for _ in range(1000)]
    assert pauses[0] == 0
    assert pauses[100] == pytest.approx(100 / REFUSALS_PER_SECOND)
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert returns.book(20.0, 1).pause_seconds == 0


@pytest.mark.parametrize("per_second", [100, 10_000])
def test_promises_are_forgotten(per_second):
    """A flood of clients that never wait costs no memory, and a minute later nobody is told of it."""
    returns = Returns(16, seconds_per_item=0.01)
    for number in range(20_000):
        returns.book(number / per_second, 16)
    assert len(returns._busy) < 3 * LONGEST_WAIT_SECONDS * 10
    later = 20_000 / per_second + LONGEST_WAIT_SECONDS + LONGEST_PAUSE_SECONDS + 1
    assert returns.book(later, 16).retry_after_seconds == 1
