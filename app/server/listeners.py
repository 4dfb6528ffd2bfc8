"""The sockets that the service listens on."""

import errno
import socket

_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # the machine does not support the address family


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a TCP socket to each address of `host`, without listening yet.

    `::` also takes IPv4 connections. An IPv6 address may be in brackets. Port 0 chooses a free one.

    Raises:
        OSError: the host is unknown, or an address is in use or not allowed; `strerror` says which.
    """
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, "not a valid host name") from error
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
        # asyncio sets TCP_NODELAY only if the protocol is given. Without it, Nagle's algorithm delays answers by 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
            listener.bind((address[0], bound[0].getsockname()[1] if bound else port, *address[2:]))
            bound.append(listener)
        except OSError as error:
            listener.close()
            failure = error
            if error.errno not in _NOT_HERE:
                break
    if failure is not None and (not bound or failure.errno not in _NOT_HERE):
        for listener in bound:
            listener.close()
        raise failure
    return bound


def describe(listener: socket.socket) -> str:
    """Return the URL of a socket's address."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
