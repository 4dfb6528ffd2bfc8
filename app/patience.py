"""How long an answer is worked on: until its client leaves or its deadline passes, whichever comes first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from starlette.types import Message, Receive

from app.errors import ClientGoneError, DeadlineError


@asynccontextmanager
async def work_while_wanted(receive: Receive, *, timeout_seconds: float) -> AsyncIterator[None]:
    """Cancel the body of the `async with` once nobody waits for what it makes.

    The request's own body must have been read whole: what `receive` gives then is the news that the client has gone.

    Raises:
        ClientGoneError: the client left.
        DeadlineError: `timeout_seconds` passed.
    """
    task = cast("asyncio.Task[None]", asyncio.current_task())
    gone = False

    def cancel(watcher: asyncio.Future[Message]) -> None:
        nonlocal gone
        if not watcher.cancelled():
            gone = True
            task.cancel()

    watcher = asyncio.ensure_future(receive())
    watcher.add_done_callback(cancel)
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
        watcher.remove_done_callback(cancel)
        watcher.cancel()
