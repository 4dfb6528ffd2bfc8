"""Computes `Retry-After` so that rejected clients do not all retry at once."""

import math
import random

# Clients that ignore `Retry-After` must not make the others wait forever.
LONGEST_WAIT_SECONDS = 60
# The share of the throughput that is promised to returning clients. The rest serves new clients and covers a rate that
# was measured too high.
_RESERVED_SHARE = 2 / 3
# The weight of the newest measurement in the moving average of the rate.
_RATE_WEIGHT = 0.2


class RetryAfter:
    """The time reserved for rejected clients, and the measured throughput.

    Times are monotonic, in seconds. Items are units of the limited resource: images or bytes.
    """

    def __init__(self, *, seconds_per_item: float = 0) -> None:
        """Reserve nothing yet; assume `seconds_per_item` until the first items are done."""
        self._reserved_until = 0.0
        self._working_since = 0.0
        self._seconds, self._items = seconds_per_item, 1.0  # moving averages; their quotient is the time per item
        self._is_measured = False

    def begin(self, now: float) -> None:
        """Start measuring again after idle time, which must not count."""
        self._working_since = now

    def finish(self, now: float, items: int) -> None:
        """Update the rate with `items` that are done now."""
        if not self._is_measured:
            self._is_measured, self._seconds, self._items = True, 0.0, 0.0
        self._seconds += max(0, now - self._working_since) - _RATE_WEIGHT * self._seconds
        self._items += items - _RATE_WEIGHT * self._items
        self._working_since = now

    def reserve(self, now: float, waiting: int, *, items: int = 1) -> int:
        """Return the whole seconds after which one client should retry, and reserve time for its `items`.

        A client waits for the `waiting` items and for all clients rejected before it. The random factor between 1 and 2
        keeps clients rejected in the same moment apart.
        """
        seconds_per_item = self._seconds / self._items
        start = max(self._reserved_until, now + waiting * seconds_per_item)
        self._reserved_until = min(start + items * seconds_per_item / _RESERVED_SHARE, now + LONGEST_WAIT_SECONDS)
        wait = 1 + (start - now) * random.uniform(1, 2)  # noqa: S311 -- nothing secret
        return min(math.floor(wait + random.random()), LONGEST_WAIT_SECONDS)  # noqa: S311 -- rounds without a bias
