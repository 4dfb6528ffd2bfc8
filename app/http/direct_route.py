"""A route that FastAPI documents, but that calls its endpoint without FastAPI's dependency injection."""

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """Calls `endpoint(request)`, which returns a response, a Pydantic model or a typed dictionary.

    FastAPI's injection of parameters and validation of replies take longer than all other steps before a small image
    reaches the model.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # 405
            return
        reply: object = await self.endpoint(Request(scope, receive, send))
        response = reply if isinstance(reply, Response) else write_model(reply)
        await response(scope, receive, send)


def write_model(model: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response, without fields that are None."""
    return Response(to_json(model, exclude_none=True), status, headers, "application/json")
