"""What every request passes on its way in and out, as plain ASGI: nothing here hides a disconnect or buffers a body."""

import re
import uuid
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import UploadTooLargeError
from app.trace import note_request_id

# What a client may choose as its request's id: nothing that could break a log line or a header.
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestId:
    """Names every request: by the client's `X-Request-ID` if it is sane, else by a new one. The answer carries it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request in `scope["state"]["request_id"]`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if _SANE_ID.fullmatch(offered) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        note_request_id(request_id)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        await self._app(scope, receive, send_named)


class BodyLimit:
    """Refuses a body that is too long: by its declared length at once, otherwise when it has grown too long."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise UploadTooLargeError from `receive`, where whoever reads the body meets it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        too_long = declared.isdecimal() and int(declared[:20]) > self._max_bytes
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive() if not too_long else {"type": "http.request"}
            received += len(message.get("body", b""))
            if too_long or received > self._max_bytes:
                raise UploadTooLargeError(f"the body has more than {self._max_bytes:,} bytes; send a smaller image")
            return message

        await self._app(scope, receive_limited, send)


class CloseWhileDraining:
    """Asks keep-alive clients to come back on a new connection while draining, so that it reaches another process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add `Connection: close` to answers while `app.state.draining`."""

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["app"].state.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_last if scope["type"] == "http" else send)


class SecurityHeaders:
    """Tells browsers to take every answer as what it says it is, to run nothing in it and to show it in no frame.

    A page that needs more says so itself: what an answer brings along is left as it is.
    """

    _HEADERS = MappingProxyType(
        {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        }
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the answer."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safe if scope["type"] == "http" else send)
