"""API keys: if the service has any, every request except the probes needs one."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import MissingKeyError
from app.http.middleware import find_header
from app.http.paths import PROBES, get_path
from app.http.problems import document_errors


class RequireKey:
    """Rejects requests without a key, in `Authorization: Bearer <key>` or as the password of Basic."""

    def __init__(self, app: ASGIApp, *, keys: Sequence[SecretStr]) -> None:
        self._app = app
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise MissingKeyError."""
        key = _read_key(scope) if scope["type"] == "http" else ""
        if scope["type"] == "http" and get_path(scope) not in PROBES and not self._knows(key):
            given = "; the key in this request is not valid" if key else ""
            raise MissingKeyError(f"send a key of this service as 'Authorization: Bearer <key>'{given}")
        await self._app(scope, receive, send)

    def _knows(self, offered: str) -> bool:
        """Compare digests with every key, so that the time reveals nothing about any key."""
        digest = _digest(offered)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def document_keys(app: FastAPI) -> None:
    """Document the keys in OpenAPI, so that Swagger UI shows a button for them."""
    write = app.openapi

    def write_with_keys() -> dict[str, Any]:
        document = write()
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path in document["paths"].keys() - PROBES:
            [refusal] = document_errors(MissingKeyError, protocol=f"{path}/".startswith(("/v1/", "/v2/"))).values()
            for operation in document["paths"][path].values():
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = refusal
        return document

    app.openapi = write_with_keys  # type: ignore[method-assign]  # as FastAPI's documentation does


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _read_key(scope: Scope) -> str:
    """Return the key in a request; "" if there is none."""
    scheme, _, value = find_header(scope, b"authorization").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # not base64, or not UTF-8
            pass
    return ""
