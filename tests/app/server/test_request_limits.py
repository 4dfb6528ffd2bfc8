"""Behaviour of app.server.request_limits: which request heads are accepted, over real sockets."""

import contextlib
import re
import time

import pytest

from tests.app.process import Process
from tests.app.sockets import GET, check_refused, dial, find_port, read_all

POST = b"POST /nowhere HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A service without a model."""
    process = Process(model_dir=tmp_path_factory.mktemp("models"))
    yield process
    process.end()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(110)) + b"\r\n",
        b"GET /health/live HTTP/1.1\r\nX: " + b"y" * 33_000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\n" + b"y" * 300_000,
        b"GET /health/live HTTP/1.1\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 40_000,
        b"GET /health/live HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 900) for i in range(50)),
    ],
)
def test_a_large_request_head_is_refused(process, head):
    """Too many headers, a long header, a long name, a long target, or all of them together."""
    with dial(process.port) as client:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(head)
        answer = read_all(client)
    if answer:  # otherwise its unread rest would have reset the connection
        check_refused(answer[answer.rindex(b"HTTP/1.1") :], 431, "headers_too_large")
    else:
        assert len(head) > 200_000


def test_a_malformed_request_gets_a_problem(process):
    """Problem details are the answer to malformed requests too."""
    with dial(process.port) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello TLS\r\n\r\n")
        check_refused(read_all(client), 400, "malformed_request")


@pytest.mark.parametrize(
    ("head", "detail"),
    [
        (b"GET / HTTP/1.1\r\n", "one Host header; this one has none"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n", "one Host header; this one has 2"),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n", "one Host header; this one has 2"),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n", "CONNECT"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n", "chunked"),
        (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "chunked"),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n", "not a valid HTTP/1.1 request"),
        (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n", "chunked"),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "not a valid HTTP/1.1 request"),
    ],
)
def test_an_ambiguous_request_gets_a_problem(process, head, detail):
    """A proxy in front could see another host, or another end of the request."""
    with dial(process.port) as client:
        client.sendall(head + b"\r\n0\r\n\r\n")
        assert detail in check_refused(read_all(client), 400, "malformed_request")


@pytest.mark.parametrize(
    "request_", [b"GET /health/live HTTP/1.0\r\n\r\n", POST + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"]
)
def test_http_1_0_and_chunked_requests_are_accepted(process, request_):
    """HTTP/1.0 has no Host, and codings are case-insensitive."""
    with dial(process.port) as client:
        client.sendall(request_ + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert read_all(client)[:12] in {b"HTTP/1.1 200", b"HTTP/1.1 404"}


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://x/", b"200"),
        (b"http://x/health/live", b"200"),
        (b"/\xff", b"400"),
        (b"*", b"404"),
        (b"x", b"400"),
    ],
)
def test_a_target_of_another_form_is_served_or_gets_a_problem(process, target, status):
    """As the first request of a connection and as a later one; none is an internal error."""
    request = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    for before, expected in ((b"", [status]), (GET, [b"200", status])):
        with dial(process.port) as client:
            client.sendall(before)
            received = client.recv(65_536) if before else b""
            client.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            received += read_all(client)
        assert re.findall(rb"HTTP/1.1 (\d+)", received) == expected
    assert not [line for line in process.log if "Traceback" in line or "Fatal" in line]


def test_trailers_are_ignored(serve):
    """A proxy in front that removes or sets headers leaves trailers alone (RFC 9110, section 6.5.1)."""
    key = "0123456789abcdef"
    port = find_port(serve(api_keys=key))
    head = POST.replace(b"/nowhere", b"/model") + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with dial(port) as client:
        client.sendall(head + f"Authorization: Bearer {key}\r\nX-Request-ID: chosen\r\n\r\n".encode())
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"chosen" not in answer


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize(
    "body", [b"Content-Length: 1000\r\n\r\n" + bytes(1000), b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("pieces", [1, 5])
def test_an_upgrade_to_another_protocol_is_ignored(process, body, pieces):
    """`curl --http2` sends it with every upload. The body belongs to the request, and the next request follows it."""
    request = b"POST /nowhere?x HTTP/1.1\r\nHost: x\r\n" + UPGRADE + body
    websocket = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    data = request * 2 + websocket + GET
    with dial(process.port) as client:
        for number in range(pieces):
            client.sendall(data[len(data) * number // pieces : len(data) * (number + 1) // pieces])
            time.sleep(0.02)
        received = b""
        while received.count(b"HTTP/1.1 ") < 4 or not received.endswith(b"}"):
            received += client.recv(65_536)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"404", b"404", b"200", b"200"]
    assert not [line for line in process.log if "pgrade" in line]
