"""One HTTP/1.1 connection: deadlines, a limit on open connections, and a close that loses no response.

It extends uvicorn's connection, which waits for a request head forever, parses any number of pipelined requests, and
whose limit on connections also rejects probes.
"""

import asyncio
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.problems import HEADER_TIMEOUT, HEADERS_TOO_LARGE, MALFORMED_REQUEST, MEDIA_TYPE, Kind, make_problem
from app.server.request_limits import MAX_HEAD_BYTES, RefusedRequestError, check_head

# How long the rest of a body may take after its answer.
_LINGER_SECONDS = 10
# How long a new connection may take for its first byte once the server stops.
_FIRST_BYTE_SECONDS = 1
# How long a client may leave an answer unread.
_UNREAD_MILLISECONDS = 30_000
# No limit counts bytes before the application receives them, so reads are small until it receives the body.
_READ_BYTES = 16_384
_BODY_READ_BYTES = 262_144


class State(Enum):
    """What a connection is doing."""

    NEW = auto()  # open, and nothing has arrived
    HEAD = auto()  # part of a request head has arrived
    BODY = auto()  # the request is running and its body is arriving
    ANSWER = auto()  # the request has arrived; its answer is not complete
    IDLE = auto()  # answered, and kept open for the next request
    DISCARD = auto()  # answered before the end of the body, which is read and dropped
    LINGER = auto()  # like DISCARD after the last answer; the server has closed its side
    CLOSED = auto()


# Which connections make room for a new one: those without a request first, then those that send a body.
_EVICTION_ORDER = {
    **dict.fromkeys((State.NEW, State.HEAD, State.IDLE, State.DISCARD, State.LINGER), 0),
    State.BODY: 1,
}


@dataclass(frozen=True)
class Limits:
    """Limits of connections. `hang_up` is called with the reason when the server closes one."""

    max_connections: int
    header_timeout_seconds: float
    hang_up: Callable[[str], None] = lambda _: None


class _AnswerTransport:
    """The transport as uvicorn's response writer sees it.

    It sends the head together with the start of the body, and leaves it to the connection how to close.
    """

    def __init__(self, connection: "Connection", close: Callable[[], None]) -> None:
        self.is_closing = connection.transport.is_closing
        self._connection = connection
        self._close = close
        self._head: bytes | None = None  # b"" once it is sent

    def write(self, data: bytes) -> None:
        if self._head is None and self._connection.cycle.response_started:  # before, it is `100 Continue`
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._connection.transport.write(data)

    def flush(self) -> None:
        """Send a head without a body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._close()


class Connection(HttpToolsProtocol, asyncio.BufferedProtocol):
    """A connection as a state machine.

    | state | event | next state |
    |---|---|---|
    | NEW, IDLE | the first bytes of a request | HEAD |
    | NEW | header timeout, or one second after the server stops | CLOSED |
    | HEAD | the head is complete | BODY |
    | HEAD | header timeout | CLOSED, after 408 |
    | HEAD, BODY | a malformed, ambiguous or too large request | CLOSED, after 400 or 431 if no answer has started |
    | BODY | the body is complete | ANSWER |
    | BODY | the answer is complete | DISCARD, or LINGER if it is the last |
    | ANSWER | the answer is complete | IDLE, or CLOSED if it is the last |
    | IDLE | keep-alive timeout, or the server stops | CLOSED |
    | DISCARD | the body is complete | IDLE |
    | DISCARD | the server stops | LINGER |
    | DISCARD, LINGER | timeout, or the rest of the body is malformed | CLOSED |
    | LINGER | the body is complete | CLOSED |
    | all but ANSWER | the connection is evicted | CLOSED |
    | all | the client disconnects | CLOSED |

    One request runs at a time. Bytes that arrive behind it wait unparsed, and reading is paused, until it is answered.
    So uvicorn's own pipeline stays empty.
    """

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state = State.NEW
        self.since = self.loop.time()  # when the state was entered
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf  # in the loop's time
        self._stopping = False
        self._buffer = bytearray()
        self._ahead = bytearray()  # bytes received after the current request
        self._body_length = 0  # bytes; 0 if the body is chunked
        self._body_left: int | None = 0  # bytes that have not arrived; None if the body is chunked
        self._framing_bytes = 0  # parsed since the last byte of a body: a head, chunk extensions or trailers
        self._tail = bytearray()  # the last bytes parsed, in which the end of a head can begin

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, and wait for its first request."""
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
        self._enter(State.NEW)
        if len(self.connections) > self._limits.max_connections:
            self._evict()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline and free the buffer. uvicorn notifies the application."""
        self._enter(State.CLOSED)
        self._buffer = bytearray()  # the rest waits for the garbage collector, in reference cycles
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer for the next read, which never goes beyond the end of a body."""
        del sizehint
        size = _READ_BYTES
        if self._body_left:
            is_received = self._body_left < self._body_length and not self.cycle.body  # by the application
            size = min(self._body_left, _BODY_READ_BYTES if is_received else _READ_BYTES)
        self._buffer = bytearray(size)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what has been read, up to the end of the request."""
        data, self._buffer = self._buffer, bytearray()
        del data[nbytes:]
        self._parse(self._ahead + data if self._ahead else data)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Start the deadline of a head."""
        super().on_message_begin()
        self._enter(State.HEAD)

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is refused."""
        length = check_head(self.parser.get_method(), self.parser.get_http_version(), self.headers)
        if self.parser.should_upgrade():
            return  # see `_feed`
        super().on_headers_complete()
        self._answer = _AnswerTransport(self, self._end_answers)
        self.cycle.transport = self._answer  # type: ignore[assignment]
        if self._stopping:
            self.cycle.keep_alive = False
        self._body_left = length
        self._body_length = length or 0
        self._framing_bytes = 0
        self.headers = []  # the parser would add trailers, which follow the body
        self._enter(State.BODY)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._framing_bytes = 0
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)
        if len(self.cycle.body) > _READ_BYTES:
            self.flow.pause_reading()  # until the application receives it

    def on_message_complete(self) -> None:
        """Note the end of the body."""
        if self.parser.should_upgrade():
            return  # see `_feed`
        super().on_message_complete()
        if self.state is State.BODY:
            self._enter(State.ANSWER)
        elif self.state is State.DISCARD:
            self._enter(State.IDLE)
        elif self.state is State.LINGER:
            self._close()

    # Called by uvicorn's response writer and server.

    def on_response_complete(self) -> None:
        """Continue with the next request, or drop the rest of this one's body."""
        self._answer.flush()
        self.cycle.body = bytearray()  # kept as long as the connection otherwise
        if self.transport.is_closing():
            return
        if self.state is State.BODY:
            self._enter(State.DISCARD)
        elif self.state is State.ANSWER:
            self._enter(State.IDLE)
        self.flow.resume_reading()
        if ahead := self._ahead:
            self._ahead = bytearray()
            self._parse(ahead)

    def shutdown(self) -> None:
        """Close once no request is in flight."""
        self._stopping = True
        if self.state is State.NEW:  # accepted a moment ago: its request can be on its way
            self._enter(State.NEW)
        elif self.state is State.IDLE:
            self._close()
        elif self.state in {State.BODY, State.ANSWER}:
            self.cycle.keep_alive = False
        elif self.state is State.DISCARD:
            self._linger()

    def abort(self) -> None:
        """Drop the connection and stop counting it; asyncio closes it in its next iteration."""
        self._enter(State.CLOSED)
        self.connections.discard(self)
        self.transport.abort()

    def _end_answers(self) -> None:
        """Close after the last answer, but read the rest of the request's body first.

        Otherwise the kernel would reset the connection, and the client could lose the answer before it has read it.
        """
        if self.state is State.BODY:
            self._linger()
        else:
            self._close()

    # Parsing.

    def _parse(self, data: bytearray) -> None:
        """Parse `data` in pieces that end where a request can end, and keep the bytes that follow the request."""
        start, data, self._tail = len(self._tail), self._tail + data if self._tail else data, bytearray()
        view = memoryview(data)
        while start < len(data) and self.state is not State.ANSWER and self.state is not State.CLOSED:
            if self._body_left:
                end = min(start + self._body_left, len(data))
            else:  # a head or a chunked body, both of which end with an empty line
                found = data.find(b"\r\n\r\n", max(0, start - 3))
                end = found + 4 if found >= 0 else len(data)
                self._tail = bytearray() if found >= 0 else data[-3:]
            self._feed(view[start:end])
            start = end
        if self.state is State.ANSWER and start < len(data):
            self._ahead, self._tail = data[start:], bytearray()
            self.flow.pause_reading()

    def _feed(self, piece: "memoryview | bytes") -> None:
        """Parse a piece, and ignore a request for another protocol, such as `h2c` (RFC 9110, section 7.8).

        The parser considers such a request complete after its head. So parse the head again, without its Upgrade
        header.
        """
        self._framing_bytes += len(piece)
        if self._framing_bytes > MAX_HEAD_BYTES and not self._body_left:
            self._refuse(HEADERS_TOO_LARGE)
            return
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            version = self.parser.get_http_version().encode()
            lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
            lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self._framing_bytes = 0
            self._feed(b"\r\n".join([*lines, b"", b""]))
        except httptools.HttpParserError as error:
            if isinstance(refused := error.__context__, RefusedRequestError):
                self._refuse(refused.kind, str(refused))
            else:
                self._refuse(MALFORMED_REQUEST)

    # Deadlines and ends.

    def _enter(self, state: State) -> None:
        """Enter a state and set its deadline.

        Few deadlines pass, and each request sets two. So a timer that runs stays: at its end it finds the new deadline.
        """
        self.state, self.since = state, self.loop.time()
        seconds = self._find_deadline()
        self._deadline = math.inf if seconds is None else self.since + seconds
        if self._timer is not None and (self._deadline < self._timer.when() or state is State.CLOSED):
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        if self._deadline < math.inf:
            self._timer = self.loop.call_at(self._deadline, self._expire, self._deadline)

    def _find_deadline(self) -> float | None:
        """Return how long the connection may stay in its state; None if the application limits that."""
        match self.state:
            case State.NEW if self._stopping:
                return min(_FIRST_BYTE_SECONDS, self._limits.header_timeout_seconds)
            case State.NEW | State.HEAD:
                return self._limits.header_timeout_seconds
            case State.IDLE:
                return self.timeout_keep_alive
            case State.DISCARD | State.LINGER:
                return _LINGER_SECONDS
        return None

    def _expire(self, deadline: float) -> None:
        self._timer = None
        if deadline < self._deadline:
            self._start_timer()
            return
        match self.state:
            case State.NEW:
                self._hang_up("silent")
            case State.HEAD:
                self._refuse(HEADER_TIMEOUT)
            case State.IDLE:
                self._close()
            case _:
                self._hang_up("body_after_answer")

    def _refuse(self, kind: Kind, detail: str | None = None) -> None:
        """Answer for the application, unless an answer has started already, and close."""
        answered = self.state is State.BODY and self.cycle.response_started
        if not answered and self.state not in {State.DISCARD, State.LINGER}:
            body = make_problem(kind, detail or kind.example, None).model_dump_json(exclude_none=True).encode()
            status = HTTPStatus(kind.status)
            head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self._hang_up(kind.code)

    def _linger(self) -> None:
        self._enter(State.LINGER)
        self.transport.write_eof()

    def _hang_up(self, reason: str) -> None:
        self._limits.hang_up(reason)
        self._close()

    def _close(self) -> None:
        self._enter(State.CLOSED)
        self.transport.close()

    def _evict(self) -> None:
        """Abort the connection that has been without a request for longest, else a slow upload, else this new one."""
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        found = [other for other in others if other.state in _EVICTION_ORDER]
        victim = min(found, key=lambda other: (_EVICTION_ORDER[other.state], other.since), default=self)
        self._limits.hang_up("too_many_connections")
        victim.abort()
