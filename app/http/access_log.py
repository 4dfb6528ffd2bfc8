"""Logs one line for every request when its answer ends, and counts it in the metrics."""

import logging
import time
from collections import defaultdict
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.forwarded import read_address
from app.http.paths import METRICS, PROBES
from app.http.problems import CLIENT_CLOSED_REQUEST, INTERNAL
from app.telemetry.metrics import Metrics
from app.telemetry.timings import Trace, current

# Probes and scrapes come every few seconds; while they succeed they are logged at level debug.
_ROUTINE = PROBES | {METRICS}
_NO_ROUTE = "none"

logger = logging.getLogger("app.request")


class AccessLog:
    """Logs and measures requests; outside of all other middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        trace = Trace()
        status, received, sent = 0, 0, 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            await send(message)

        current.set(trace)  # never reset: the context ends with the request, and the server may log in it after us
        try:
            await self._app(scope, receive_counted, send_counted)
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
