"""Paths of requests: behind a proxy's prefix, with a slash at the end, and those of probes."""

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

# Orchestrators and load balancers send neither API keys nor a Host that the operator chose.
PROBES = frozenset({"/health", "/health/live", "/v2/health/live", "/v2/health/ready"})
METRICS = "/metrics"


def get_path(scope: Scope) -> str:
    """Return a request's path without the prefix under which a proxy serves the application."""
    path: str = scope["path"]
    return path.removeprefix(get_root(scope))


def get_root(scope: Scope) -> str:
    """Return the prefix under which a proxy serves the application, such as `/classifier`; "" if there is none."""
    root: str = scope.get("root_path", "")
    return root


def ignore_trailing_slashes(router: Router) -> None:
    """Make `/predict/` answer like `/predict`.

    A redirect, Starlette's default, is an empty answer to clients that don't follow it, such as curl.
    """
    router.redirect_slashes = False
    not_found = router.default

    async def retry(scope: Scope, receive: Receive, send: Send) -> None:
        path = get_path(scope) if scope["type"] == "http" else "/"
        if path == "":
            scope["path"] += "/"
        elif path != "/" and path.endswith("/"):
            scope["path"] = scope["path"].rstrip("/")
        else:
            await not_found(scope, receive, send)
            return
        await router.app(scope, receive, send)

    router.default = retry
