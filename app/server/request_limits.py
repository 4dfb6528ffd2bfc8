"""Limits the size of request heads and rejects ambiguous requests, which enable request smuggling."""

from collections.abc import Sequence

from app.http.problems import HEADERS_TOO_LARGE, MALFORMED_REQUEST, Kind

# Browsers send a few dozen headers; the cookies of other services on the same host can add a few kB.
MAX_HEADERS = 100
MAX_HEAD_BYTES = 32_768


class RefusedRequestError(Exception):
    """A request that is answered without the application."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def check_head(method: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Check a request head; a proxy in front must see the same host and the same end of the request.

    See RFC 9112, sections 3.2 and 6.1. The parser itself rejects two lengths, and a length beside chunks.

    Returns:
        The length of the body in bytes; None if it is chunked.

    Raises:
        RefusedRequestError: the head has too many headers or is ambiguous.
    """
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    is_old = version == "1.0"
    if len(headers) > MAX_HEADERS:
        raise RefusedRequestError(HEADERS_TOO_LARGE, HEADERS_TOO_LARGE.example)
    if method == b"CONNECT":
        raise RefusedRequestError(MALFORMED_REQUEST, "this is not a proxy: CONNECT is not supported")
    if hosts > 1 or (hosts == 0 and not is_old):
        raise RefusedRequestError(
            MALFORMED_REQUEST, f"a request needs exactly one Host header; this one has {hosts or 'none'}"
        )
    if codings and (is_old or codings != [b"chunked"]):
        raise RefusedRequestError(MALFORMED_REQUEST, "the only supported transfer coding is chunked, in HTTP/1.1")
    return None if codings else int(dict(headers).get(b"content-length", 0))
