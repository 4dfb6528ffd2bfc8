"""When those who are sent away should come back: a book of promises, so that they do not all meet again.

A client can be told whole seconds only. Told the time that the queue needs, all of a burst would come back within a
moment, to a queue that has room for few of them. So the book keeps how much work it has promised for each moment, and
tells each client the first second whose moment has time for it, or is soon followed by one that has: those who come
may fill a share of the places, and wait there.
"""

import math
from collections import defaultdict
from typing import NamedTuple

# To say no takes the event loop about as long as to say what an image shows, and clients that ask again at once,
# whatever they are told, would take it from those who are served. So above this rate each waits for its turn to be
# told, though not for ever.
REFUSALS_PER_SECOND = 300
LONGEST_PAUSE_SECONDS = 2.0
# Clients that never wait as they are told must not make the others wait for ever.
LONGEST_WAIT_SECONDS = 60
_MOMENT_SECONDS = 0.1
# The rest is for new clients, and for a rate that was measured too high.
_PROMISED_SHARE = 0.5
# How much of the past is forgotten whenever something is done: about the last ten decide.
_RATE_WEIGHT = 0.2


class Promise(NamedTuple):
    """What one client is told, and when."""

    pause_seconds: float  # from now, until it is told to go away
    retry_after_seconds: int  # from then, until it should come back


class Returns:
    """The promises made so far, and the rate at which work is done, on which they rest.

    Times are monotonic, in seconds; items are whatever takes room: images, bytes.
    """

    def __init__(self, room: int, *, seconds_per_item: float = 0) -> None:
        """Make an empty book.

        Args:
            room: how many items there are places for.
            seconds_per_item: believed until the first are done.
        """
        self._room = room
        self._busy: defaultdict[int, float] = defaultdict(float)  # seconds of work promised, by moment
        self._refused_until = 0.0
        self._worked_from = 0.0
        self._seconds, self._items = seconds_per_item, 1.0  # of work done, and what was done in them, of late
        self._is_measured = False

    def begin(self, now: float) -> None:
        """Note that there is work again: the time before does not count."""
        self._worked_from = now

    def finish(self, now: float, items: int) -> None:
        """Take `items` that are done into the rate."""
        if not self._is_measured:
            self._is_measured, self._seconds, self._items = True, 0.0, 0.0
        self._seconds += max(0, now - self._worked_from) - _RATE_WEIGHT * self._seconds
        self._items += items - _RATE_WEIGHT * self._items
        self._worked_from = now

    def book(self, now: float, waiting: int, *, items: int = 1) -> Promise:
        """Promise one client a time.

        Args:
            now: the time.
            waiting: how many items are to be worked on before.
            items: how many the client brings.
        """
        pause = self._pace(now)
        now += pause
        self._forget(now)
        seconds_per_item = self._seconds / self._items
        soonest = max(1, math.ceil(waiting * seconds_per_item))
        work = min(items * seconds_per_item / _PROMISED_SHARE, LONGEST_WAIT_SECONDS)
        patience = int(_PROMISED_SHARE * self._room * seconds_per_item / _MOMENT_SECONDS)
        free = 0
        for seconds in range(soonest, LONGEST_WAIT_SECONDS):
            moment = int((now + seconds) / _MOMENT_SECONDS)
            free = max(free, moment)
            while free <= moment + patience and self._busy.get(free, 0) >= _MOMENT_SECONDS:
                free += 1
            if free <= moment + patience:
                self._fill(free, work)
                return Promise(pause, seconds)
        return Promise(pause, LONGEST_WAIT_SECONDS)

    def _pace(self, now: float) -> float:
        """Return the seconds after which one more client is to be told no."""
        told_at = min(max(now, self._refused_until), now + LONGEST_PAUSE_SECONDS)
        self._refused_until = told_at + 1 / REFUSALS_PER_SECOND
        return told_at - now

    def _fill(self, moment: int, work: float) -> None:
        while work > 0:
            taken = min(work, _MOMENT_SECONDS - self._busy[moment])
            self._busy[moment] += taken
            work -= taken
            moment += 1

    def _forget(self, now: float) -> None:
        """Drop what is past, now and then."""
        if len(self._busy) > 2 * LONGEST_WAIT_SECONDS / _MOMENT_SECONDS:
            present = int(now / _MOMENT_SECONDS)
            self._busy = defaultdict(float, {moment: busy for moment, busy in self._busy.items() if moment >= present})
