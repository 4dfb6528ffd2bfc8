"""Unpacks compressed request bodies (RFC 9110, 8.4)."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import MalformedUploadError, UnsupportedUploadError
from app.http.middleware import find_header

# zlib's `wbits` for each encoding that is supported.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# The maximum to unpack at once. A gzip file can unpack to a thousand times its size.
_PIECE_BYTES = 65_536


class ContentEncoding:
    """Unpacks gzip and deflate, piece by piece.

    Limits on body sizes apply to the unpacked body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; its `receive` unpacks, or raises UnsupportedUploadError or MalformedUploadError."""
        encoding = find_header(scope, b"content-encoding").strip().lower() if scope["type"] == "http" else ""
        if encoding in {"", "identity"}:
            await self._app(scope, receive, send)
            return
        # Content-Length is that of the compressed body.
        dropped = (b"content-encoding", b"content-length")
        scope["headers"] = [header for header in scope["headers"] if header[0] not in dropped]
        pieces = _unpack(encoding, receive)

        async def receive_unpacked() -> Message:
            return await anext(pieces, None) or await receive()

        await self._app(scope, receive_unpacked, send)


async def _unpack(encoding: str, receive: Receive) -> AsyncIterator[Message]:
    """Yield the messages of a body, unpacked."""
    if encoding not in _WINDOWS:
        raise UnsupportedUploadError(
            f"Content-Encoding: {encoding[:50]} is not supported; send the body as it is, or with gzip or deflate"
        )
    unpacker = zlib.decompressobj(_WINDOWS[encoding])
    has_begun = False
    more_body = True
    while more_body:
        message = await receive()
        if message["type"] != "http.request":  # the client has disconnected
            yield message
            return
        more_body = message.get("more_body", False)
        packed, body = message.get("body", b""), b""
        if packed and not has_begun:
            has_begun = True
            if encoding == "deflate" and packed[0] & 0x0F != zlib.DEFLATED:
                unpacker = zlib.decompressobj(-zlib.MAX_WBITS)  # without zlib's header, as some clients send it
        while packed or len(body) == _PIECE_BYTES:  # what did not fit into a piece waits in the unpacker
            try:
                body = unpacker.decompress(packed, _PIECE_BYTES)
            except zlib.error as error:
                raise _damaged(encoding) from error
            if unpacker.unused_data:
                raise _damaged(encoding)
            packed = unpacker.unconsumed_tail
            yield {"type": "http.request", "body": body, "more_body": True}
            await asyncio.sleep(0)  # let the event loop run other requests
    if not unpacker.eof:
        raise _damaged(encoding)
    yield {"type": "http.request", "body": b"", "more_body": False}


def _damaged(encoding: str) -> MalformedUploadError:
    return MalformedUploadError(f"the body can't be unpacked: it is damaged, cut short, or not {encoding}")
