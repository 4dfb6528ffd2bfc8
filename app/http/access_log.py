"""Gives every request an id and a trace, completes the headers of its response, and logs and counts it at its end."""

import logging
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.forwarded import read_address
from app.http.middleware import find_header
from app.http.paths import METRICS, PROBES
from app.http.problems import CLIENT_CLOSED_REQUEST, INTERNAL
from app.telemetry.metrics import Metrics
from app.telemetry.timings import Trace, current

# Probes and scrapes come every few seconds; while they succeed they are logged at level debug.
_ROUTINE = PROBES | {METRICS}
_NO_ROUTE = "none"
# Request ids that clients may choose. These characters are safe in logs and headers.
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
# Browsers must not guess types, run scripts, show answers in frames or let other sites use them.
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not `no-referrer`, with which browsers send `Origin: null` even to the site itself.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)

_Header = tuple[bytes, bytes]

logger = logging.getLogger("app.request")


class AccessLog:
    """Logs and measures requests, and adds the headers that every response has; outside of all other middleware.

    The headers are the request's id, `_SECURITY_HEADERS` and, while draining, `Connection: close`, so that the
    client's next request reaches another process. It keeps headers that are already set, because pages have their own
    content policy.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the request's id into `scope["state"]["request_id"]`, pass the request on, then log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        trace = Trace(_choose_id(scope))
        scope.setdefault("state", {})["request_id"] = trace.request_id
        status, received, sent = 0, 0, 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_complete(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = _complete(message.get("headers", ()), trace, draining=scope["app"].state.draining)
                message = {**message, "headers": headers}
            else:
                sent += len(message.get("body", b""))
            await send(message)

        current.set(trace)  # never reset: the context ends with the request, and the server may log in it after us
        try:
            await self._app(scope, receive_counted, send_complete)
        except Exception:
            status = status or INTERNAL.status
            trace.problems.append(INTERNAL.code)
            raise
        finally:
            seconds = time.monotonic() - begun
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            self._metrics.observe_request(
                trace, route=route, status=status or CLIENT_CLOSED_REQUEST, seconds=seconds, received_bytes=received
            )
            _log(scope, trace, route, status or CLIENT_CLOSED_REQUEST, seconds, received, sent)


def _choose_id(scope: Scope) -> str:
    offered = find_header(scope, b"x-request-id")
    # An id is no secret, and random numbers from the system take a system call.
    return offered if offered and _SANE_ID.fullmatch(offered) else f"{random.getrandbits(128):032x}"


def _complete(headers: Iterable[_Header], trace: Trace, *, draining: bool) -> list[_Header]:
    complete = list(headers)
    present = {name for name, _ in complete}
    complete += [header for header in _SECURITY_HEADERS if header[0] not in present]
    complete.append((b"x-request-id", trace.request_id.encode()))
    if draining and b"connection" not in present:
        complete.append((b"connection", b"close"))
    return complete


def _log(scope: Scope, trace: Trace, route: str, status: int, seconds: float, received: int, sent: int) -> None:
    level = logging.DEBUG if route in _ROUTINE and status == HTTPStatus.OK else logging.INFO
    if not logger.isEnabledFor(level):
        return
    stages: defaultdict[str, float] = defaultdict(float)
    for stage, spent in trace.stages:
        stages[stage] += spent
    # A path can contain any character, so it is escaped. The query is left out, because it can contain secrets.
    path = scope["path"][:200].encode("unicode_escape").decode("ascii")
    client = read_address((scope.get("client") or ("",))[0])  # under plain uvicorn a header can set any text
    fields = {
        "client": str(client) if client else None,
        "method": scope["method"],
        "route": route,
        "path": path,
        "status": status,
        "seconds": round(seconds, 6),
        "received_bytes": received,
        "sent_bytes": sent,
        "stage_seconds": {stage: round(spent, 6) for stage, spent in stages.items()},
        "problems": trace.problems,
        "model": trace.model,
        "version": trace.version,
    }
    message = "%s %s %d %.1f ms%s"
    logger.log(
        level, message, scope["method"], path, status, 1000 * seconds, "".join(f" {code}" for code in trace.problems),
        extra={name: value for name, value in fields.items() if value not in (None, [], {})},
    )  # fmt: skip
