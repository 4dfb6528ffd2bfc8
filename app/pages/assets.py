"""Static files of the pages, from memory: they are few, and a thread for each request would cost more."""

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.http.shared_response import SharedResponse
from app.pages.render import HEADERS


class File(Protocol):
    """A file of a folder or an installed package."""

    @property
    def name(self) -> str:
        """Name without its folder."""

    def read_bytes(self) -> bytes:
        """Return its content."""


def serve_files(files: Iterable[File]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for the path parameter `name`, which serves these files as they are now.

    Browsers revalidate a file every time, so that they never mix two versions of a page.
    """
    contents = {file.name: file.read_bytes() for file in files}
    tags = {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, content in contents.items()}

    async def serve_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in contents:
            raise HTTPException(404, "there is no such file")
        headers = {**HEADERS, "ETag": tags[name]}
        if tags[name] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return SharedResponse(contents[name], media_type=mimetypes.guess_type(name)[0], headers=headers)

    return serve_file
