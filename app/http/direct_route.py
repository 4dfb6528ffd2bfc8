"""A route that FastAPI documents, and whose endpoint gets the request without FastAPI's help."""

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """Calls `endpoint(request)`, which returns a response, or a model to be written as JSON.

    FastAPI would take longer to inject parameters, and to validate a reply that the service itself has made, than a
    small image takes before it reaches the model.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # 405
            return
        reply: Response | BaseModel = await self.endpoint(Request(scope, receive, send))
        response = reply if isinstance(reply, Response) else write_model(reply)
        await response(scope, receive, send)


def write_model(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Write a reply as JSON, without what is None."""
    return Response(model.model_dump_json(exclude_none=True), status, headers, "application/json")
