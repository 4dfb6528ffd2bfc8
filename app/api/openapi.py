"""The API's OpenAPI document."""

import json

from starlette.requests import Request
from starlette.responses import Response

from app.http.dependencies import get_cache
from app.http.paths import get_root
from app.http.shared_response import SharedResponse


async def show_openapi(request: Request) -> Response:
    """Return the document, with the prefix under which a proxy serves the API.

    FastAPI's own route generates the document for every request, which takes milliseconds.
    """
    root = get_root(request.scope)

    async def write() -> bytes:
        document = request.app.openapi()
        servers = {"servers": [{"url": root}]} if root else {}
        return json.dumps({**document, **servers}, ensure_ascii=False, separators=(",", ":")).encode()

    body = await get_cache(request).get(("openapi", root), write)
    return SharedResponse(body, media_type="application/json")
