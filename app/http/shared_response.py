"""A response whose body many clients share."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE_BYTES = 65_536


class SharedResponse(Response):
    """Sends its body in pieces, each after the client has read most of the ones before.

    Sent at once, all that a slow client has not read would be copied into the buffer of its connection.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- ASGI's signature
        """Send the response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, max(1, len(self.body)), PIECE_BYTES):
            end = start + PIECE_BYTES
            more_body = end < len(self.body)
            await send({"type": "http.response.body", "body": bytes(self.body[start:end]), "more_body": more_body})
