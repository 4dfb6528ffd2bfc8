"""Cancels work on an answer when its client disconnects or its deadline passes, whichever comes first."""

import asyncio
from types import TracebackType
from typing import Any, Literal, cast

from starlette.requests import Request

from app.errors import ClientGoneError, DeadlineError

# Most answers take less. To notice that the client disconnects takes a task, a tenth of the time of a small image.
_UNWATCHED_SECONDS = 0.1


class cancel_on_disconnect:  # noqa: N801 -- used like a function, as `asyncio.timeout` is
    """Cancel the body of the `async with` when the client disconnects or the deadline passes.

    Read the request's body first: the next message from ASGI's `receive` is then `http.disconnect`. A client that
    disconnects in the first `_UNWATCHED_SECONDS` is noticed after them.

    Raises:
        ClientGoneError: the client disconnected.
        DeadlineError: `timeout_seconds` passed.
    """

    def __init__(self, request: Request, *, timeout_seconds: float) -> None:
        self._request = request
        self._seconds = timeout_seconds
        self._state: Literal["working", "gone", "late", "done"] = "working"
        self._departure: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> None:
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        loop = self._task.get_loop()
        self._deadline = loop.time() + self._seconds
        self._timer = loop.call_later(min(self._seconds, _UNWATCHED_SECONDS), self._watch, loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(self._deadline, self._cancel, "late")
        self._departure = asyncio.ensure_future(self._request.receive())
        self._departure.add_done_callback(lambda _: self._cancel("gone"))

    def _cancel(self, state: Literal["gone", "late"]) -> None:
        if self._state == "working":  # `departure` may report its own cancellation
            self._state = state
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        state, self._state = self._state, "done"
        self._timer.cancel()
        if self._departure is not None:
            self._departure.cancel()
        if state == "working" or self._task.uncancel() or kind is not asyncio.CancelledError:
            return
        if state == "gone":
            raise ClientGoneError("the client disconnected before its answer") from error
        raise DeadlineError(f"no answer within {self._seconds:g} s; the service is busy, try again later") from error
