"""One HTTP/1.1 connection: how long anything on it may take, how many there may be, and an orderly end.

uvicorn waits for a request's head for as long as it takes, queues whatever is pipelined, and has no bound on
connections but one that answers probes 503 too.
"""

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.http.deadline import GONE
from app.http.problems import HEADER_TIMEOUT, MALFORMED_REQUEST, MEDIA_TYPE, Kind, make_problem
from app.inference.turns import Turns
from app.server.request_limits import FaultError, HeadProtocol
from app.telemetry.timings import BEGUN

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_MAX_PIPELINED = 16
# How long the rest of a body that has been answered already may take: closing at once would lose the answer.
_LINGER_SECONDS = 10
# How long a connection that was accepted when the listener closed may take for its first byte.
_FIRST_BYTE_SECONDS = 1
# How long an answer may stay unread.
_UNREAD_MILLISECONDS = 30_000


@dataclass(frozen=True)
class Limits:
    """What a connection may cost. `hang_up` is told the reason whenever one is ended for it."""

    max_connections: int
    header_timeout_seconds: float
    hang_up: Callable[[str], None] = lambda _: None


class _Ending:
    """What an answer is written to: the transport, but that the connection decides how it closes."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Connection(HeadProtocol):
    """A connection with limits; `accept_others` is called once it is made, `turns` are all connections'."""

    def __init__(
        self, *args: Any, limits: Limits, turns: Turns, accept_others: Callable[[], None], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._turns = turns
        self._accept_others = accept_others
        self.idle_since: float | None = time.monotonic()  # None while a request is under way
        self.receiving_since: float | None = None  # None unless it is its body that is under way
        self.unread_since: float | None = None  # None unless an answer waits for the client to read
        self._unanswered: deque[RequestResponseCycle] = deque()  # the first is under way, others were pipelined
        self._deadline: asyncio.TimerHandle | None = None
        self._is_last = False
        self._lingers = False  # the last answer has been given, but not the whole of its request's body been read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it, or end it; then await its first request."""
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux has it
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
        self._make_room()
        self._await_head()
        self._accept_others()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who work on answers; uvicorn tells the last of them only.

        It also leaves the timer of a connection that was reset, which keeps all of it for `keep_alive_seconds`.
        """
        self._await_nothing()
        self._unset_keepalive_if_required()
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
            if not (gone := cycle.scope["state"][GONE]).done():
                gone.set_result(None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note since when the client reads no more."""
        super().pause_writing()
        self.unread_since = time.monotonic()

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        super().resume_writing()
        self.unread_since = None

    def data_received(self, data: bytes) -> None:
        """Give a head that begins its time, and parse."""
        if self.idle_since is not None and self._deadline is None:
            self._await_head()
        super().data_received(data)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Give the head its time: at the end of the service it had less for its first byte."""
        super().on_message_begin()
        if self._is_last and self.idle_since is not None:
            self._await_head()

    def begin(self) -> None:
        """Note the request, unless too many wait behind it."""
        self.idle_since = None
        self.receiving_since = self.scope["state"][BEGUN] = time.monotonic()
        self._await_nothing()
        self.cycle.transport = _Ending(self.transport, self._end)  # type: ignore[assignment]  # all it asks for
        self.scope["state"][GONE] = self.loop.create_future()
        self._unanswered.append(self.cycle)
        if self._is_last:
            self.cycle.keep_alive = False
        if len(self.pipeline) > _MAX_PIPELINED:
            raise FaultError(MALFORMED_REQUEST, f"more than {_MAX_PIPELINED} requests were sent ahead")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        """Start at once what is only asked for, such as a probe; what is sent to be worked on, in its turn."""
        start = partial(super()._start_asgi_task, cycle, app)
        if cycle.scope["method"] == "POST":
            self._turns.call(start)
        else:
            start()

    def on_message_complete(self) -> None:
        """Await the next head, if the answer went before the body's end."""
        if self.parser.should_upgrade():
            return
        self.receiving_since = None
        if self.idle_since is not None:
            self._await_nothing()  # its answer went first, and its body has come to an end now
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if self._lingers:
            self.transport.close()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Await the next request, or the rest of this one's body."""
        self._unanswered.popleft().body = bytearray()  # what nobody has read of it would stay until the next request
        if self._lingers:
            self.idle_since = time.monotonic()
            self.flow.resume_reading()
            return
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next one was pipelined and is under way
            self.idle_since = time.monotonic()
            if self.cycle.more_body and not self.transport.is_closing():
                self._await(_LINGER_SECONDS, self._hang_up, "body_after_answer")

    # How it ends.

    def refuse(self, fault: Kind, detail: str | None = None) -> None:
        """Answer what never became a request, and end the connection.

        Where an answer has begun, or requests that came before are still to be answered, there is no room for another:
        the last of theirs ends the connection.
        """
        if whole := [cycle for cycle in self._unanswered if not cycle.more_body]:
            whole[-1].keep_alive = False
            return
        if self.receiving_since is not None and self.cycle.response_started:
            self._hang_up(fault.code)
            return
        body = make_problem(fault, detail or fault.example, None).model_dump_json(exclude_none=True).encode()
        status = HTTPStatus(fault.status)
        head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self._hang_up(fault.code)

    def shutdown(self) -> None:
        """End once nothing is under way: a request that has come in part, or waits unread, is served first."""
        self._is_last = True
        if self._lingers:
            return
        if self.idle_since is None:
            super().shutdown()
        elif self.receiving_since is not None:
            self._end()
        elif self.head_begun or self._count_unread():
            self._await_head()
        elif self.cycle is None:
            self._await(min(_FIRST_BYTE_SECONDS, self._limits.header_timeout_seconds), self.transport.close)
        else:
            self.transport.close()

    def _end(self) -> None:
        """Close after the last answer; or, if its request's body still comes, say that this is the end and read that.

        Closing at once would tell the client's kernel to drop the answer, which its program may not have read yet.
        """
        if self.receiving_since is None:
            self.transport.close()
            return
        self._lingers = True
        self.transport.write_eof()
        self._await(_LINGER_SECONDS, self._hang_up, "body_after_answer")

    def _make_room(self) -> None:
        """If there are too many connections, end one: that which has been idle for longest.

        If none is idle, that which has been sending a body for longest; if none does, that which has not been reading
        its answer for longest; if there is none of these either, this one.
        """
        if len(self.connections) <= self._limits.max_connections:
            return
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        self._limits.hang_up("too_many_connections")
        for since in map(attrgetter, ("idle_since", "receiving_since", "unread_since")):
            if found := [other for other in others if since(other) is not None]:
                min(found, key=since).transport.abort()
                return
        self.transport.abort()

    def _await_head(self) -> None:
        self._await(self._limits.header_timeout_seconds, self._give_up_on_head)

    def _await(self, seconds: float, then: Callable[..., None], *args: object) -> None:
        self._await_nothing()
        self._deadline = self.loop.call_later(seconds, then, *args)

    def _await_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up_on_head(self) -> None:
        if self.head_begun:
            self.refuse(HEADER_TIMEOUT)
        else:
            self._hang_up("silent")

    def _hang_up(self, reason: str) -> None:
        self._limits.hang_up(reason)
        self.transport.close()

    def _count_unread(self) -> int:
        """Return how many bytes have arrived that the event loop has not read yet."""
        peer = self.transport.get_extra_info("socket")
        count: int = struct.unpack("i", fcntl.ioctl(peer.fileno(), termios.FIONREAD, bytes(4)))[0]
        return count
