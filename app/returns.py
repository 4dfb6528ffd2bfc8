"""When those who are sent away should come back: a book of promises, so that they do not all meet again.

A client can be told whole seconds only. Told the time that the queue needs, all of a burst would come back within a
moment, to a queue that has room for few of them. So the book keeps how much work it has promised for each moment, and
tells each client the first second whose moment has time for it.
"""

import math
from collections import defaultdict

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


class Returns:
    """The promises made so far."""

    def __init__(self) -> None:
        self._busy: defaultdict[int, float] = defaultdict(float)  # seconds of work promised, by moment
        self._refused_until = 0.0

    def book(self, now: float, waiting: int, seconds_per_item: float, *, items: int = 1) -> int:
        """Promise one client a time; return the whole seconds from `now` after which it should come back.

        Args:
            now: a monotonic time, in seconds.
            waiting: how many items are to be worked on before.
            seconds_per_item: how long each takes.
            items: how many the client brings.
        """
        self._forget(now)
        soonest = max(1, math.ceil(waiting * seconds_per_item))
        for seconds in range(soonest, LONGEST_WAIT_SECONDS):
            moment = int((now + seconds) / _MOMENT_SECONDS)
            if self._busy[moment] < _MOMENT_SECONDS:
                self._fill(moment, items * seconds_per_item / _PROMISED_SHARE)
                return seconds
        return LONGEST_WAIT_SECONDS

    def pace(self, now: float) -> float:
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
