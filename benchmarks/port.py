"""Finds a port for a process to listen on."""

import random
import socket
from contextlib import suppress

# Below the range from which systems take the ports of connections: one of these might take the port before the process.
PORTS = range(20_000, 30_000)


def find_free_port() -> int:
    """Return a free port."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 -- no secret
        with suppress(OSError), socket.create_server(("", port)):
            return port
