"""How long an answer is worked on: until its client leaves or its deadline passes, whichever comes first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from starlette.requests import Request

from app.errors import ClientGoneError, DeadlineError

GONE = "gone"
"""Names, in a request's state, the future that `app.server.connection` finishes when the request's client has left."""


@asynccontextmanager
async def work_while_wanted(request: Request, *, timeout_seconds: float) -> AsyncIterator[None]:
    """Cancel the body of the `async with` once nobody waits for what it makes.

    The request's own body must have been read whole: under other servers than this project's, what the request
    receives then is the news that the client has gone. To wait for it takes a task more.

    Raises:
        ClientGoneError: the client left.
        DeadlineError: `timeout_seconds` passed.
    """
    task = cast("asyncio.Task[None]", asyncio.current_task())
    working, gone = True, False

    def cancel(departure: asyncio.Future[Any]) -> None:
        nonlocal gone
        if working and not departure.cancelled():
            gone = True
            task.cancel()

    departure: asyncio.Future[Any] = request.scope["state"].get(GONE) or asyncio.ensure_future(request.receive())
    departure.add_done_callback(cancel)
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError as error:
        raise DeadlineError(f"no answer within {timeout_seconds:g} s; the service is busy, try again later") from error
    except asyncio.CancelledError as error:
        if gone and task.uncancel() == 0:
            raise ClientGoneError("the client left before its answer") from error
        raise
    finally:
        working = False  # the client may have left in this very turn of the loop, and `cancel` be about to be called
        departure.remove_done_callback(cancel)
        departure.cancel()
