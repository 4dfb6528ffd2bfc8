"""Caches answers that are the same for all clients for a second, so that many clients cost little more than one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

SECONDS = 1.0
_MAX_ENTRIES = 32

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by key. Concurrent requests for a key wait for one computation."""

    def __init__(self) -> None:
        self._values: dict[Hashable, tuple[Value, float]] = {}  # with their expiry time
        self._making: dict[Hashable, asyncio.Task[Value]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Value]]) -> Value:
        """Return the value of `key`, which `make` made at most a second ago. Errors of `make` are not cached."""
        value, until = self._values.get(key, (None, 0.0))
        if value is not None and time.monotonic() < until:
            return value
        if key not in self._making:
            self._making[key] = asyncio.ensure_future(self._make(key, make))
        return await asyncio.shield(self._making[key])  # if one client disconnects, others still wait

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[Value]]) -> Value:
        try:
            value = await make()
        finally:
            del self._making[key]
        now = time.monotonic()
        self._values = {key: entry for key, entry in self._values.items() if now < entry[1]}
        while len(self._values) >= _MAX_ENTRIES:
            del self._values[next(iter(self._values))]
        self._values[key] = (value, now + SECONDS)
        return value
