"""The event loop's turns, shared out: of what comes by the hundred a few are done in each, and the rest in the next.

asyncio does all that is ready before it looks at sockets again. The answers of a batch, or the requests of a crowd,
would keep a probe waiting for as long as all of them take.
"""

import asyncio
from collections import deque
from collections.abc import Callable

# A small image takes the event loop some 0.3 ms to take in and as much to answer, so four are about a millisecond.
CALLS_A_TURN = 4


class Turns:
    """Calls that are made in order, a few in each turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._scheduled = False

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called in the next turn, or in one of those after it."""
        self._waiting.append(function)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        self._scheduled = False
        try:
            for _ in range(min(CALLS_A_TURN, len(self._waiting))):
                self._waiting.popleft()()
        finally:
            self._schedule()
