"""Who may ask: everything but the probes takes one of the service's keys, if it has any."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import MissingKeyError
from app.http.problems import document_errors

# An orchestrator's probes carry no keys.
_OPEN = {"/health", "/health/live", "/v2/health/live", "/v2/health/ready"}


class RequireKey:
    """Refuses requests without a key. Takes `Authorization: Bearer <key>`, or Basic with the key as the password."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[SecretStr], answer: Callable[[Request, Exception], Any]) -> None:
        """Guard `app`; `answer` is how it answers its own errors."""
        self._app = app
        self._answer = answer
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        key = _read_key(scope) if scope["type"] == "http" else ""
        if scope["type"] != "http" or path in _OPEN or self._knows(key):
            await self._app(scope, receive, send)
            return
        given = "; the one that was sent is none of them" if key else ""
        error = MissingKeyError(f"send a key of this service as 'Authorization: Bearer <key>'{given}")
        answer = await self._answer(Request(scope), error)
        await answer(scope, receive, send)

    def _knows(self, offered: str) -> bool:
        """Compare with every key, digest by digest: the time taken tells nothing of any key, not even its length."""
        digest = _digest(offered)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def document_keys(app: FastAPI) -> None:
    """Let the API's documentation say what takes a key and how; Swagger UI has a button for it then."""
    write = app.openapi

    def write_with_keys() -> dict[str, Any]:
        document = write()
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path in document["paths"].keys() - _OPEN:
            [refusal] = document_errors(MissingKeyError, inference=f"{path}/".startswith("/v2/")).values()
            for operation in document["paths"][path].values():
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = refusal
        return document

    app.openapi = write_with_keys  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _read_key(scope: Scope) -> str:
    """Return the key that a request carries, or nothing."""
    scheme, _, value = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, no ASCII, or no UTF-8
            pass
    return ""
