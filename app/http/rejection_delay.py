"""Delays rejections, so that clients that retry at once leave the event loop time for the others."""

import asyncio
import random

# A rejection costs the event loop about as much as an answer.
REJECTIONS_PER_SECOND = 150
# Within this time rejections are spread even if they are few: `Retry-After`, in whole seconds, can't keep clients
# rejected in the same moment apart.
SHORTEST_SPREAD_SECONDS = 1.0
LONGEST_SPREAD_SECONDS = 4.0


class RejectionDelay:
    """A random delay for each rejection, longer the more there are."""

    def __init__(self) -> None:
        self._waiting = 0

    async def wait(self) -> None:
        """Wait for up to a second, or up to four if many others wait."""
        self._waiting += 1
        spread = 2 * self._waiting / REJECTIONS_PER_SECOND  # each waits for half of it on average
        spread = min(max(spread, SHORTEST_SPREAD_SECONDS), LONGEST_SPREAD_SECONDS)
        try:
            await asyncio.sleep(random.uniform(0, spread))  # noqa: S311 -- nothing secret
        finally:
            self._waiting -= 1
