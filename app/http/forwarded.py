"""Reads the headers of reverse proxies: `X-Forwarded-For`, `-Proto` and `-Prefix`.

It trusts only known proxies, because any client can send these headers. uvicorn's middleware does not support prefixes,
and accepts any text as an address.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]{0,99}){1,16}")
_LOOPBACK = ("127.0.0.0/8", "::1")

Address = IPv4Address | IPv6Address


class Forwarded:
    """Sets the client's address, the scheme and the path's prefix in the ASGI scope.

    A proxy may strip the prefix from the path or keep it. In ASGI, `path` includes `root_path`, so a stripped prefix is
    added again.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str], root_path: str) -> None:
        """Wrap `app`.

        Args:
            app: gets the requests.
            trusted: addresses and networks of proxies, besides loopback's; `*` for any.
            root_path: the prefix of requests without a prefix from a trusted proxy.
        """
        self._app = app
        self._trusts_all = "*" in trusted
        self._trusted: list[IPv4Network | IPv6Network] = [
            ip_network(name) for name in (*_LOOPBACK, *trusted) if name != "*"
        ]
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Change the scope, and pass the request on."""
        if scope["type"] == "http":
            prefix = self._root_path
            headers = [header for header in scope["headers"] if header[0].startswith(b"x-forwarded-")]
            if headers and self._trusts(read_address((scope.get("client") or ("",))[0])):
                prefix = self._apply(headers, scope) or prefix
            if prefix and not scope.get("root_path"):
                scope["root_path"] = prefix
                if not f"{scope['path']}/".startswith(f"{prefix}/"):
                    scope["path"] = prefix + scope["path"]
        await self._app(scope, receive, send)

    def _trusts(self, address: Address | None) -> bool:
        return self._trusts_all or (address is not None and any(address in network for network in self._trusted))

    def _apply(self, headers: Sequence[tuple[bytes, bytes]], scope: Scope) -> str:
        """Set the address and scheme; return the prefix."""
        values = {b"x-forwarded-for": "", b"x-forwarded-proto": "", b"x-forwarded-prefix": ""}
        for name, value in headers:
            if name in values:
                values[name] = f"{values[name]},{value.decode('latin-1')}"
        hops, schemes, prefixes = ([part.strip() for part in value.split(",")[1:]] for value in values.values())
        if (address := self._find_client(hops)) is not None:
            scope["client"] = (str(address), 0)
        if schemes and schemes[-1] in {"http", "https"}:
            scope["scheme"] = schemes[-1]
        prefix = "".join(part.rstrip("/") for part in prefixes)  # each proxy adds its own
        return prefix if _PREFIX.fullmatch(prefix) else ""

    def _find_client(self, hops: Sequence[str]) -> Address | None:
        """Return the last address that is not a trusted proxy's. Clients can forge the addresses before it."""
        client = None
        for hop in reversed(hops):
            address = read_address(hop)
            if address is None:
                break
            client = address
            if not self._trusts(address):
                break
        return client


@lru_cache(maxsize=256)  # of clients that send many requests
def read_address(text: str) -> Address | None:
    """Read an IP address, with or without a port or scope (`%eth0`); None if it is not one."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text.partition("%")[0])  # a scope can be any text, of any length
    except ValueError:
        return None
