"""One HTTP/1.1 connection: uvicorn's protocol, with a deadline and a size for a request's head, and an orderly end.

uvicorn waits for a request's head for as long as it takes and as much as comes, queues whatever is pipelined, and has
no bound on connections but one that answers probes 503 too.
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
from http import HTTPStatus
from operator import attrgetter
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.patience import GONE
from app.problems import HEADER_TIMEOUT, HEADERS_TOO_LARGE, MALFORMED_REQUEST, MEDIA_TYPE, Kind, make_problem

# Browsers send a few dozen; cookies of other services on the same host make a few kB.
MAX_HEADERS = 100
MAX_HEAD_BYTES = 32_768
_MAX_PIPELINED = 16
# How long the rest of a body that has been answered already may take: closing at once would lose the answer.
_LINGER_SECONDS = 10
# How long a connection that was accepted when the listener closed may take for its first byte.
_FIRST_BYTE_SECONDS = 1
# How long an answer may stay unread.
_UNREAD_MILLISECONDS = 30_000


@dataclass(frozen=True)
class Limits:
    """What a connection may cost.

    `hang_up` is told the reason whenever one is ended for it; `accept_others` is called whenever one has been made.
    """

    max_connections: int
    header_timeout_seconds: float
    hang_up: Callable[[str], None] = lambda _: None
    accept_others: Callable[[], None] = lambda: None


class _FaultError(Exception):
    """What makes the parser stop: a request that is understood and not taken."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class _Ending:
    """What an answer is written to: the transport, but that the connection decides how it closes."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Connection(HttpToolsProtocol):
    """A connection with limits."""

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self.idle_since: float | None = time.monotonic()  # None while a request is under way
        self.receiving_since: float | None = None  # None unless it is its body that is under way
        self.unread_since: float | None = None  # None unless an answer waits for the client to read
        self._unanswered: deque[RequestResponseCycle] = deque()  # the first is under way, others were pipelined
        self._deadline: asyncio.TimerHandle | None = None
        self._fed_bytes = 0  # since the parser last told of anything: what it holds back
        self._head_bytes = 0
        self._head_begun = False
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
        self._limits.accept_others()

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
        """Parse what came, unless it is more of one thing than any request needs."""
        if self.idle_since is not None and self._deadline is None:
            self._await_head()
        self._fed_bytes += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._fed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HEADERS_TOO_LARGE)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Start weighing a head."""
        super().on_message_begin()
        self._head_bytes, self._head_begun = 0, True
        if self._is_last and self.idle_since is not None:
            self._await_head()  # at the end of the service it had less time for its first byte

    def on_url(self, url: bytes) -> None:
        """Weigh a part of the target."""
        super().on_url(url)
        self._weigh(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Weigh a header, or a trailer."""
        super().on_header(name, value)
        self._weigh(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Start the request, unless too many wait behind it, or others could understand it in another way."""
        self._require_clear_head()
        if self.parser.should_upgrade():
            return  # it comes again, see `_feed`
        if not self.url.startswith(b"/") and not (target := httptools.parse_url(self.url)).path:
            self.url = b"/?" + (target.query or b"")  # http://host is http://host/, which uvicorn does not know
        super().on_headers_complete()
        self.headers = []  # those of the request are its scope's now, and what may follow its body are none of them
        self._fed_bytes, self._head_begun, self.idle_since = 0, False, None
        self.receiving_since = time.monotonic()
        self._await_nothing()
        self.cycle.transport = _Ending(self.transport, self._end)  # type: ignore[assignment]  # all it asks for
        self.scope["state"][GONE] = self.loop.create_future()
        self._unanswered.append(self.cycle)
        if self._is_last:
            self.cycle.keep_alive = False
        if len(self.pipeline) > _MAX_PIPELINED:
            raise _FaultError(MALFORMED_REQUEST, f"more than {_MAX_PIPELINED} requests were sent ahead")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._fed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the body."""
        if self.parser.should_upgrade():
            return
        self._fed_bytes, self.receiving_since = 0, None
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
        self._unanswered.popleft()
        if self._lingers:
            self.idle_since = time.monotonic()
            self.flow.resume_reading()
            return
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next one was pipelined and is under way
            self.idle_since = time.monotonic()
            if self.cycle.more_body and not self.transport.is_closing():
                self._await(_LINGER_SECONDS, self._hang_up, "body_after_answer")

    def _feed(self, data: bytes) -> None:
        """Parse; a wish to go on in another protocol, such as `h2c`, is passed over, as a server may (RFC 9110, 7.8).

        The parser takes such a wish for the end of the request, its body included. So it gets the request once more,
        without it, and then what came behind the head.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            version = self.parser.get_http_version().encode()
            lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
            lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            self._feed(b"\r\n".join([*lines, b"", data[upgrade.args[0] :]]))
        except httptools.HttpParserError as error:
            if isinstance(fault := error.__context__, _FaultError):
                self._refuse(fault.kind, str(fault))
            else:
                self._refuse(MALFORMED_REQUEST)

    # How it ends.

    def shutdown(self) -> None:
        """End once nothing is under way: a request that has come in part, or waits unread, is served first."""
        self._is_last = True
        if self._lingers:
            return
        if self.idle_since is None:
            super().shutdown()
        elif self.receiving_since is not None:
            self._end()
        elif self._head_begun or self._count_unread():
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
        if self._head_begun:
            self._refuse(HEADER_TIMEOUT)
        else:
            self._hang_up("silent")

    def _hang_up(self, reason: str) -> None:
        self._limits.hang_up(reason)
        self.transport.close()

    def _weigh(self, count: int) -> None:
        """Refuse a head, trailers included, that has grown too large; raising ends the parser."""
        self._fed_bytes = 0
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise _FaultError(HEADERS_TOO_LARGE, HEADERS_TOO_LARGE.example)

    def _require_clear_head(self) -> None:
        """Refuse a request whose host or whose end a proxy in front may see elsewhere (RFC 9112, 3.2 and 6.1)."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        is_old = self.parser.get_http_version() == "1.0"
        if self.parser.get_method() == b"CONNECT":
            raise _FaultError(MALFORMED_REQUEST, "this is no proxy: CONNECT is not taken")
        if hosts > 1 or (hosts == 0 and not is_old):
            raise _FaultError(MALFORMED_REQUEST, f"a request has one Host header, this has {hosts or 'none'}")
        if codings and (is_old or [coding.lower() for coding in codings] != [b"chunked"]):
            raise _FaultError(MALFORMED_REQUEST, "of transfer codings only HTTP/1.1's chunked is taken")

    def _refuse(self, fault: Kind, detail: str | None = None) -> None:
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

    def _count_unread(self) -> int:
        """Return how many bytes have arrived that the event loop has not read yet."""
        peer = self.transport.get_extra_info("socket")
        count: int = struct.unpack("i", fcntl.ioctl(peer.fileno(), termios.FIONREAD, bytes(4)))[0]
        return count
