"""The server process's sockets: uvicorn with a drain that loses nothing, and with the limits that it lacks.

SIGTERM or SIGINT starts draining: `/health` says so at once, requests go on being served for the time set, then the
listener closes, requests in flight finish, and the process exits with status 0. A second signal skips the wait, a
third drops what is in flight.
"""

import asyncio
import logging
import math
import os
import resource
import socket
import time
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.inference.turns import Turns
from app.server.connection import Connection, Limits
from app.settings import Settings

_DROP_SECONDS = 2
_SPARE_FILES = 256  # besides connections: the model, libraries

logger = logging.getLogger("app")


def make_server(app: FastAPI, settings: Settings) -> "Server":
    """Make the server for `app`; its `run` serves until told to stop."""
    limits = Limits(
        max_connections=_allow_files(settings.max_connections),
        header_timeout_seconds=settings.header_timeout_seconds,
        hang_up=app.state.metrics.observe_hang_up,
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # `app.http.access_log` has it, with more in it
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,  # `app.http.forwarded` has them
        timeout_keep_alive=settings.keep_alive_seconds,
        # No request in flight can take longer than this.
        timeout_graceful_shutdown=math.ceil(
            settings.header_timeout_seconds + settings.upload_timeout_seconds + settings.request_timeout_seconds + 1
        ),
    )
    server = Server(config, app, drain_seconds=settings.drain_seconds)
    # uvicorn only calls it.
    config.http = partial(  # type: ignore[assignment]
        Connection, limits=limits, turns=Turns(), accept_others=server.accept_others
    )
    return server


class Server(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._drained_at = math.inf
        self._listeners: list[socket.socket] = []
        self._accepts = False  # is about to
        self._accepted: set[asyncio.Task[object]] = set()
        app.state.metrics.connections.set_function(lambda: len(self.server_state.connections))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- uvicorn's signature
        """Start draining; on a second signal stop now; on a third drop what is in flight.

        uvicorn's own handler also raises the signal again at the end, and the process would die of it.
        """
        if self.should_exit:
            self.force_exit = True
        elif self._app.state.draining:
            self.should_exit = True
        else:
            self._app.state.draining = True
            self._drained_at = time.monotonic() + self._drain_seconds
            logger.info("draining for %g s; a second signal stops at once", self._drain_seconds)

    async def on_tick(self, counter: int) -> bool:
        """Stop once drained; uvicorn asks ten times a second."""
        self.should_exit = self.should_exit or time.monotonic() >= self._drained_at
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and keep the listeners at hand: whoever waits for one is accepted without the event loop."""
        await super().startup(sockets)
        self._listeners = [
            socket.socket(fileno=os.dup(listener.fileno())) for server in self.servers for listener in server.sockets
        ]

    def accept_others(self) -> None:
        """Accept soon all who wait for it; uvloop takes one in each of its turns, which are long under overload."""
        if not self._accepts:
            self._accepts = True
            asyncio.get_running_loop().call_soon(self._accept_others)

    def _accept_others(self) -> None:
        self._accepts = False
        self._connect(self._accept())

    def _connect(self, accepted: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for peer in accepted:
            task = loop.create_task(loop.connect_accepted_socket(self._make_connection, peer))
            self._accepted.add(task)
            task.add_done_callback(self._accepted.discard)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the connections that wait to be accepted, which closing the listener would reset; then close it."""
        self._connect(self._close_listeners())
        if self._accepted:  # those of a moment ago, too, whose connections are still being made
            await asyncio.wait(self._accepted)
        await super().shutdown(sockets)
        if self.force_exit:
            await self._drop_requests()
            await self.lifespan.shutdown()

    async def _drop_requests(self) -> None:
        """End what is in flight as if its clients had left; cancelled by the loop's end, each would log a traceback."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        until = time.monotonic() + _DROP_SECONDS
        await asyncio.sleep(0)
        while self.server_state.tasks and time.monotonic() < until:  # others start meanwhile, whose turn had not come
            await asyncio.wait(self.server_state.tasks, timeout=until - time.monotonic())

    def _close_listeners(self) -> list[socket.socket]:
        # The event loop lets go of its listeners before the last look at their queues, so that nothing that it still
        # has to do comes between that look and the end of the listener itself.
        for server in self.servers:
            server.close()
        accepted = self._accept()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        return accepted

    def _accept(self) -> list[socket.socket]:
        accepted = []
        for listener in self._listeners:
            listener.settimeout(0)
            try:
                while True:
                    accepted.append(listener.accept()[0])
            except OSError:  # none is left
                continue
        return accepted

    def _make_connection(self) -> asyncio.Protocol:
        make = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]


def _allow_files(max_connections: int) -> int:
    """Let the process open as many files as its connections need; return how many connections the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            max_connections = max(1, soft - _SPARE_FILES)
            logger.warning("the system allows %d open files: at most %d connections are kept", soft, max_connections)
    return max_connections
