"""Starts, drains and stops the server, without losing a request that was accepted.

SIGTERM, SIGINT or SIGHUP starts the drain: `/health` answers 503 at once, and requests are served for
`APP_DRAIN_SECONDS`. Then the listener closes, the requests in flight finish, and the process exits with status 0. A
second signal ends the drain early; a third one drops the requests in flight.
"""

import asyncio
import logging
import math
import resource
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from app.server.connection import Connection, Limits
from app.server.listeners import describe
from app.settings import Settings

_DROP_SECONDS = 2
_SPARE_FILES = 256  # beside the connections: the model, libraries, probes
# An orchestrator, a load balancer, Prometheus, and a person with curl.
_MAX_PROBE_CONNECTIONS = 32
# Iterations that asyncio needs to set up an accepted connection (two) and to read its first bytes (two).
_READ_ITERATIONS = 4

logger = logging.getLogger("app")


def make_server(
    app: FastAPI, settings: Settings, *, probe_app: FastAPI | None = None, probe_sockets: Sequence[socket.socket] = ()
) -> "Server":
    """Make the server for `app`. Its `run` takes the sockets to listen on, and returns when it has stopped.

    `probe_app` is served on `probe_sockets`, with its own limit on connections, until the other requests have finished.
    """
    limits = Limits(
        max_connections=_allow_files(settings.max_connections),
        header_timeout_seconds=settings.header_timeout_seconds,
        hang_up=app.state.metrics.observe_hang_up,
    )
    server = Server(_configure(app, settings, limits), app, drain_seconds=settings.drain_seconds)
    if probe_app is not None:
        probe_limits = Limits(_MAX_PROBE_CONNECTIONS, limits.header_timeout_seconds, limits.hang_up)
        server.probes = Probes(_configure(probe_app, settings, probe_limits), probe_sockets)
    return server


def _configure(app: FastAPI, settings: Settings, limits: Limits) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="asyncio",
        log_config=None,
        access_log=False,  # see `app.http.access_log`
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,  # see `app.http.forwarded`
        timeout_keep_alive=settings.keep_alive_seconds,
        # No request takes longer.
        timeout_graceful_shutdown=math.ceil(
            settings.header_timeout_seconds + settings.upload_timeout_seconds + settings.request_timeout_seconds + 1
        ),
    )
    config.http = partial(Connection, limits=limits)  # type: ignore[assignment]  # uvicorn only calls it
    config.load()
    return config


class Probes:
    """A second listener, for probes and metrics, which the connections to the first one can't fill."""

    def __init__(self, config: uvicorn.Config, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._state = ServerState()
        connect: Callable[..., asyncio.Protocol] = config.http_protocol_class
        self._connect = partial(connect, config=config, server_state=self._state, app_state={})
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Start listening."""
        loop = asyncio.get_running_loop()
        self._servers = [await loop.create_server(self._connect, sock=listener) for listener in self._sockets]
        logger.info("probes on %s", ", ".join(map(describe, self._sockets)))

    def stop(self) -> None:
        """Close the listener and every connection."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_seconds: float) -> None:
        super().__init__(config)
        self.probes: Probes | None = None
        self._app = app
        self._drain_seconds = drain_seconds
        self._drained_at = math.inf
        self._drain_logged = False
        app.state.metrics.connections.set_function(lambda: len(self.server_state.connections))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- uvicorn's signature
        """Start the drain; on a second signal stop now; on a third one drop the requests in flight.

        uvicorn's own handler raises the signal again after the shutdown, which would kill the process. This one logs
        nothing, because a signal can interrupt logging.
        """
        if self.should_exit:
            self.force_exit = True
        elif self._app.state.draining:
            self.should_exit = True
        else:
            self._app.state.draining = True
            self._drained_at = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Stop after the drain. uvicorn calls this ten times a second."""
        if self._app.state.draining and not self._drain_logged:
            self._drain_logged = True
            logger.info("draining for %g s; a second signal stops at once", self._drain_seconds)
        self.should_exit = self.should_exit or time.monotonic() >= self._drained_at
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        logger.info("running on %s", ", ".join(map(describe, sockets or ())))
        if self.probes is not None:
            await self.probes.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, finish the requests that have arrived, and close."""
        await self._close_listeners(sockets or [])
        await super().shutdown(sockets)
        if self.force_exit:
            await self._drop_requests()
            await self.lifespan.shutdown()
        if self.probes is not None:
            self.probes.stop()

    async def _close_listeners(self, sockets: Sequence[socket.socket]) -> None:
        """Close the listeners, but first accept the connections in their queues, which closing would reset."""
        loop = asyncio.get_running_loop()
        listeners = [listener.dup() for listener in sockets]  # the event loop closes the originals
        for server in self.servers:
            server.close()
        peers = [peer for listener in listeners for peer in _accept(listener)]
        for listener in listeners:
            listener.close()
        for peer in peers:
            await loop.connect_accepted_socket(self._connect, peer)
        for _ in range(_READ_ITERATIONS):
            await asyncio.sleep(0)

    def _connect(self) -> asyncio.Protocol:
        connect: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return connect(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _drop_requests(self) -> None:
        """Abort requests in flight as if their clients had disconnected. Cancelling would log a traceback for each."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_DROP_SECONDS)


def _accept(listener: socket.socket) -> list[socket.socket]:
    peers = []
    listener.settimeout(0)
    try:
        while True:
            peers.append(listener.accept()[0])
    except OSError:  # the queue is empty
        return peers


def _allow_files(max_connections: int) -> int:
    """Raise the limit of open files for `max_connections`; return how many connections the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            max_connections = max(1, soft - _SPARE_FILES)
            logger.warning("the system allows %d open files: at most %d connections are kept", soft, max_connections)
    return max_connections
