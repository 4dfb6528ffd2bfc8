"""Behaviour of app.inference.turns."""

import asyncio
from functools import partial

import pytest

from app.inference.turns import CALLS_A_TURN, Turns

pytestmark = pytest.mark.anyio


async def test_a_few_calls_are_made_in_each_turn():
    """In order, none at once, and what comes meanwhile goes to the end."""
    turns, called = Turns(), []
    for number in range(2 * CALLS_A_TURN):
        turns.call(partial(called.append, number))
    assert called == []
    await asyncio.sleep(0)
    turns.call(partial(called.append, 2 * CALLS_A_TURN))
    for done in (1, 2):
        assert called == list(range(done * CALLS_A_TURN))
        await asyncio.sleep(0)
    assert called == list(range(2 * CALLS_A_TURN + 1))
    turns.call(partial(called.append, -1))
    await asyncio.sleep(0)
    assert called[-1] == -1


async def test_a_call_may_ask_for_another():
    """That has its own turn, and there are never more in one than a few."""
    turns, called = Turns(), []

    def go_on() -> None:
        called.append(None)
        turns.call(go_on)

    go_on()
    for _ in range(10):
        before = len(called)
        await asyncio.sleep(0)
        assert len(called) - before <= 1


async def test_a_call_that_fails_keeps_no_other_from_being_made():
    """The event loop tells of it."""
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    turns, called = Turns(), []
    turns.call(partial(int, "x"))
    turns.call(partial(called.append, 1))
    await asyncio.sleep(0.01)
    assert called == [1]
    assert [type(failure) for failure in failures] == [ValueError]
