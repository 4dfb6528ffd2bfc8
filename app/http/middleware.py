"""Middleware for every request, as plain ASGI: it neither hides disconnects nor buffers bodies."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import UploadsFullError, UploadTooLargeError
from app.http.paths import PROBES, get_path
from app.inference.retry_after import RetryAfter

# Assumed until the rate has been measured, which needs bodies that fill more than half of the memory for bodies.
_SECONDS_PER_BYTE = 1 / 20e6
# An answer that is cached takes the event loop a few tenths of a millisecond.
_READS_PER_ITERATION = 16


def find_header(scope: Scope, name: bytes) -> str:
    """Return a request's header, by its name in lower case; "" if there is none."""
    for header, value in scope["headers"]:
        if header == name:
            decoded: str = value.decode("latin-1")
            return decoded
    return ""


class ReadPacing:
    """Starts a few GET requests in each iteration of the event loop, so that probes get in between.

    The event loop handles everything that is ready before it looks at its sockets again. Hundreds of clients that read
    pages or metrics would delay each probe by as long as all their answers take.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._slots = asyncio.Semaphore(_READS_PER_ITERATION)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass probes and uploads on at once; pace other requests."""
        if scope["type"] == "http" and scope["method"] != "POST" and get_path(scope) not in PROBES:
            async with self._slots:
                await asyncio.sleep(0)
        await self._app(scope, receive, send)


class BodyLimit:
    """Limits the size of each request body, and the memory that all bodies take together.

    A body with a Content-Length is rejected before it is read, a chunked one as soon as it exceeds a limit.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_total_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._total_bytes = 0  # of the requests in flight
        self._retry_after = RetryAfter(seconds_per_item=_SECONDS_PER_BYTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that raises UploadTooLargeError or UploadsFullError."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = find_header(scope, b"content-length")
        length = int(declared[:20]) if declared.isdecimal() else 0
        held = 0

        def release() -> None:
            nonlocal held
            self._total_bytes -= held
            held = 0

        async def receive_limited() -> Message:
            nonlocal held
            self._require_short(length)
            if not held:
                self._require_room(length, length)
            message = await receive()
            count = len(message.get("body", b""))
            self._require_short(held + count)
            try:
                self._require_room(count, length)
            except UploadsFullError:
                release()  # now, because the answer is delayed
                raise
            was_crowded = self._is_crowded
            self._total_bytes += count
            held += count
            if self._is_crowded and not was_crowded:
                self._retry_after.begin(time.monotonic())
            return message

        try:
            await self._app(scope, receive_limited, send)
        finally:
            if held and self._is_crowded:
                self._retry_after.finish(time.monotonic(), held)
            release()

    @property
    def _is_crowded(self) -> bool:
        """Whether the memory is more than half full. Only then does the rate depend on the service."""
        return 2 * self._total_bytes > self._max_total_bytes

    def _require_short(self, length: int) -> None:
        if length > self._max_bytes:
            raise UploadTooLargeError(f"the body has more than {self._max_bytes:,} bytes; send a smaller image")

    def _require_room(self, count: int, length: int) -> None:
        """Raise UploadsFullError if there is no room for `count` bytes of a body of `length`, 0 if that is unknown."""
        if self._total_bytes + count > self._max_total_bytes:
            seconds = self._retry_after.reserve(time.monotonic(), self._total_bytes, items=length or self._max_bytes)
            raise UploadsFullError(
                f"other uploads use the {self._max_total_bytes:,} bytes reserved for them; try again in {seconds} s",
                retry_after_seconds=seconds,
            )
