"""Behaviour of app.returns."""

from collections import Counter

import pytest

from app.returns import LONGEST_PAUSE_SECONDS, LONGEST_WAIT_SECONDS, REFUSALS_PER_SECOND, Returns


def test_a_burst_comes_back_as_a_stream():
    """Ten seconds' work that comes in one returns at a rate that leaves room, whatever whole seconds allow."""
    returns = Returns()
    rate = 200.0
    comings = [number / (10 * rate) for number in range(int(10 * rate))]
    backs = [now + returns.book(now, 16, 1 / rate) for now in comings]
    per_moment = Counter(int(back * 5) for back in backs)  # fifths of a second
    assert max(per_moment.values()) <= rate / 5
    assert max(backs) < 25


def test_the_first_is_told_the_time_of_the_queue():
    """At least a second, and never more than a minute."""
    assert Returns().book(0, 10, 0.01) == 1
    assert Returns().book(0, 250, 0.01) == 3
    assert Returns().book(0, 1, 0) == 1
    assert Returns().book(0, 10_000, 1) == LONGEST_WAIT_SECONDS


def test_slow_work_takes_several_moments():
    """Of a model that takes half a second for an image, no two returns are promised in one second."""
    returns = Returns()
    assert [returns.book(100, 2, 0.5) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert returns.book(100.2, 2, 0.5) > 5


def test_refusals_are_told_at_a_pace():
    """The first at once, a flood one after another, and nobody much later than the longest pause."""
    returns = Returns()
    pauses = [returns.pace(10.0) for _ in range(1000)]
    assert pauses[0] == 0
    assert pauses[100] == pytest.approx(100 / REFUSALS_PER_SECOND)
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert returns.pace(20.0) == 0


@pytest.mark.parametrize("per_second", [100, 10_000])
def test_promises_are_forgotten(per_second):
    """A flood of clients that never wait costs no memory, and a minute later nobody is told of it."""
    returns = Returns()
    for number in range(20_000):
        returns.book(number / per_second, 16, 0.01)
    assert len(returns._busy) < 3 * LONGEST_WAIT_SECONDS * 10
    assert returns.book(20_000 / per_second + LONGEST_WAIT_SECONDS + 1, 16, 0.01) == 1
