"""Protects the service from web pages of other sites, which run in browsers that can reach it.

A page can send a form to any address, including loopback, and with DNS rebinding it can read the answers. Browsers send
the site of the page (`Sec-Fetch-Site`, `Origin`) and the name of the service (`Host`).
"""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import CrossSiteError, UnknownHostError
from app.http.forwarded import read_address
from app.http.middleware import find_header
from app.http.paths import METRICS, PROBES, get_path

_ASKED_BY_ADDRESS = PROBES | {METRICS}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class OriginCheck:
    """Rejects requests with an unknown `Host`, and requests other than GET from pages of other sites.

    Probes and scrapers use the IP address of a machine or pod, so on their paths `Host` may be any address. DNS
    rebinding needs a name.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]) -> None:
        """Wrap `app`.

        Args:
            app: gets the accepted requests.
            allowed_hosts: names of the service; `*.example.org` for all subdomains, `*` for any name.
            allowed_origins: origins whose pages may send requests; `*` for all.
        """
        self._app = app
        self._any_host = "*" in allowed_hosts
        self._hosts = {host for host in allowed_hosts if not host.startswith("*")}
        self._domains = tuple(host[1:] for host in allowed_hosts if host.startswith("*."))
        self._origins = set(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise UnknownHostError or CrossSiteError."""
        if scope["type"] == "http":
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host = find_header(scope, b"host").lower()
        if not self._any_host and not self._knows(_cut_port(host), get_path(scope)):
            raise UnknownHostError(
                f"this service does not accept the host name {_cut_port(host)[:100]!r}; "
                "its operator can add it to APP_ALLOWED_HOSTS"
            )
        if scope["method"] not in _SAFE_METHODS and "*" not in self._origins:
            self._check_origin(scope, host)

    def _knows(self, name: str, path: str) -> bool:
        if name in self._hosts or name.endswith(self._domains):
            return True
        return path in _ASKED_BY_ADDRESS and (not name or read_address(name) is not None)

    def _check_origin(self, scope: Scope, host: str) -> None:
        """Raise CrossSiteError unless this site's own page, an allowed one, or no page at all sent the request.

        Browsers send `Sec-Fetch-Site` over HTTPS and to loopback; elsewhere the origin's host must be this one.
        """
        origin = find_header(scope, b"origin")
        site = find_header(scope, b"sec-fetch-site")
        is_own = (
            site in {"same-origin", "none"}
            if site
            else not origin or _cut_default_port(origin.partition("://")[2]) == _cut_default_port(host)
        )
        if not is_own and origin not in self._origins:
            raise CrossSiteError(
                f"pages of {origin[:100] or 'other sites'} may not use this service; its operator can add that origin "
                "to APP_CORS_ORIGINS"
            )


def _cut_default_port(host: str) -> str:
    return host.removesuffix(":80").removesuffix(":443")


def _cut_port(host: str) -> str:
    """Return the name or address in a Host header, an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
