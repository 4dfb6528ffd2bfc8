"""The heads of requests: uvicorn's parser, with a size for each, and no two ways to understand one.

uvicorn takes as much head as comes. What a proxy in front could understand in another way, it passes on.
"""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.problems import HEADERS_TOO_LARGE, MALFORMED_REQUEST, Kind

# Browsers send a few dozen; cookies of other services on the same host make a few kB.
MAX_HEADERS = 100
MAX_HEAD_BYTES = 32_768


class FaultError(Exception):
    """What makes the parser stop: a request that is understood and not taken."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class HeadProtocol(HttpToolsProtocol):
    """A protocol that calls `refuse` for whatever never becomes a request, and `begin` for what does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.head_begun = False
        self._head_bytes = 0
        self._fed_bytes = 0  # since the parser last told of anything: what it holds back

    def refuse(self, fault: Kind, detail: str | None = None) -> None:
        """Answer what never becomes a request, and end the connection."""
        raise NotImplementedError

    def begin(self) -> None:
        """Take note of a request whose head is complete. It may raise FaultError."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it is more of one thing than any request needs."""
        self._fed_bytes += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._fed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.refuse(HEADERS_TOO_LARGE)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Start weighing a head."""
        super().on_message_begin()
        self._head_bytes, self.head_begun = 0, True

    def on_url(self, url: bytes) -> None:
        """Weigh a part of the target."""
        super().on_url(url)
        self._weigh(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Weigh a header, or a trailer."""
        super().on_header(name, value)
        self._weigh(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Start the request, unless others could understand it in another way."""
        self._require_clear()
        if self.parser.should_upgrade():
            return  # it comes again, see `_feed`
        if not self.url.startswith(b"/") and not (target := httptools.parse_url(self.url)).path:
            self.url = b"/?" + (target.query or b"")  # http://host is http://host/, which uvicorn does not know
        super().on_headers_complete()
        self.headers = []  # those of the request are its scope's now, and what may follow its body are none of them
        self._fed_bytes, self.head_begun = 0, False
        self.begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._fed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the body."""
        self._fed_bytes = 0
        super().on_message_complete()

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
            if isinstance(fault := error.__context__, FaultError):
                self.refuse(fault.kind, str(fault))
            else:
                self.refuse(MALFORMED_REQUEST)

    def _weigh(self, count: int) -> None:
        """Refuse a head, trailers included, that has grown too large; raising ends the parser."""
        self._fed_bytes = 0
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise FaultError(HEADERS_TOO_LARGE, HEADERS_TOO_LARGE.example)

    def _require_clear(self) -> None:
        """Refuse a request whose host or whose end a proxy in front may see elsewhere (RFC 9112, 3.2 and 6.1)."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        is_old = self.parser.get_http_version() == "1.0"
        if self.parser.get_method() == b"CONNECT":
            raise FaultError(MALFORMED_REQUEST, "this is no proxy: CONNECT is not taken")
        if hosts > 1 or (hosts == 0 and not is_old):
            raise FaultError(MALFORMED_REQUEST, f"a request has one Host header, this has {hosts or 'none'}")
        if codings and (is_old or [coding.lower() for coding in codings] != [b"chunked"]):
            raise FaultError(MALFORMED_REQUEST, "of transfer codings only HTTP/1.1's chunked is taken")
