"""Cancels work on an answer when its client disconnects or its deadline passes, whichever comes first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from starlette.requests import Request

from app.errors import ClientGoneError, DeadlineError


@asynccontextmanager
async def cancel_on_disconnect(request: Request, *, timeout_seconds: float) -> AsyncIterator[None]:
    """Cancel the body of the `async with` when the client disconnects or the deadline passes.

    Read the request's body first: the next message from ASGI's `receive` is then `http.disconnect`.

    Raises:
        ClientGoneError: the client disconnected.
        DeadlineError: `timeout_seconds` passed.
    """
    task = cast("asyncio.Task[None]", asyncio.current_task())
    working, gone = True, False

    def cancel(departure: asyncio.Future[Any]) -> None:
        nonlocal gone
        if working and not departure.cancelled():
            gone = True
            task.cancel()

    departure = asyncio.ensure_future(request.receive())
    departure.add_done_callback(cancel)
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError as error:
        raise DeadlineError(f"no answer within {timeout_seconds:g} s; the service is busy, try again later") from error
    except asyncio.CancelledError as error:
        if gone and task.uncancel() == 0:
            raise ClientGoneError("the client disconnected before its answer") from error
        raise
    finally:
        working = False  # `cancel` may be scheduled already
        departure.remove_done_callback(cancel)
        departure.cancel()
