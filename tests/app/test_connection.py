"""Behaviour of app.connection and app.server: slow, large and many connections, over real sockets."""

import contextlib
import json
import re
import socket
import threading
import time
from http.client import HTTPResponse

import pytest

from app.main import create_app
from app.server import Server, make_server
from app.settings import Settings
from tests.app.fakes import make_model
from tests.app.process import Process

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A service without a model and with short patience."""
    process = Process(
        model_dir=tmp_path_factory.mktemp("models"),
        header_timeout_seconds=0.5,
        keep_alive_seconds=30,
        max_connections=4,
    )
    yield process
    process.end()


def dial(process: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", process.port), timeout=10)


def read_all(client: socket.socket) -> bytes:
    """Read until the service ends the connection, one way or the other."""
    data = b""
    try:
        while part := client.recv(65_536):
            data += part
    except ConnectionResetError:
        pass
    return data


def read_answer(client: socket.socket) -> str:
    """Read one answer whole."""
    answer = HTTPResponse(client)
    answer.begin()
    return f"{answer.status} {answer.read().decode()}"


def check_problem(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"application/problem+json" in head
    assert b"connection: close" in head
    assert (json.loads(body)["status"], json.loads(body)["code"]) == (status, code)


def count_hang_ups(process: Process) -> dict[str, int]:
    connection = process.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {m[1]: int(float(m[2])) for m in re.finditer(r'hang_ups_total\{reason="(\w+)"\} (\S+)', text)}


def test_a_head_that_trickles_is_cut(process):
    """A byte now and then does not put the deadline off."""
    with dial(process) as client:
        started = time.monotonic()
        answer = b""
        for byte in GET:
            try:
                client.sendall(bytes([byte]))
                client.settimeout(0.1)
                answer = client.recv(65_536)
                break
            except TimeoutError:
                continue
        client.settimeout(10)
        answer += read_all(client)
        assert time.monotonic() - started < 3
    check_problem(answer, 408, "header_timeout")


def test_a_second_head_that_trickles_is_cut(process):
    """The deadline is the same on a connection that was kept."""
    with dial(process) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        time.sleep(0.8)  # idle for longer than a head may take: that is what keeping a connection is for
        client.sendall(GET[:10])
        check_problem(read_all(client), 408, "header_timeout")


def test_a_silent_connection_is_closed(process):
    """Nothing was asked, so nothing is answered."""
    before = count_hang_ups(process).get("silent", 0)
    with dial(process) as client:
        assert read_all(client) == b""
    assert count_hang_ups(process)["silent"] == before + 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(110)),
        b"GET /health/live HTTP/1.1\r\nX: " + b"y" * 33_000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\n" + b"y" * 300_000,
        b"GET /health/live HTTP/1.1\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 40_000,
        b"GET /health/live HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 900) for i in range(50)),
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 200,
    ],
)
def test_a_head_without_end_is_refused(process, head):
    """Too many headers, a long one, a long name, a long target, all of them together, trailers."""
    with dial(process) as client:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(head)
        answer = read_all(client)
    if answer:  # else the rest of what was sent reset the connection
        check_problem(answer[answer.rindex(b"HTTP/1.1") :], 431, "headers_too_large")
    else:
        assert len(head) > 200_000


def test_what_is_no_http_is_a_problem(process):
    """Even what never becomes a request is answered as everything else is."""
    with dial(process) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello TLS\r\n\r\n")
        check_problem(read_all(client), 400, "malformed_request")


@pytest.mark.parametrize(
    "head", [b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n"]
)
def test_a_request_for_two_hosts_or_for_a_proxy_is_a_problem(process, head):
    """Whoever stands in front may understand it in another way."""
    with dial(process) as client:
        client.sendall(head)
        check_problem(read_all(client), 400, "malformed_request")


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize(
    "body", [b"Content-Length: 1000\r\n\r\n" + bytes(1000), b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("pieces", [1, 5])
def test_a_wish_for_another_protocol_is_passed_over(process, body, pieces):
    """`curl --http2` sends it with every upload: the body belongs to the request, and the next request follows it."""
    request = b"POST /nowhere?x HTTP/1.1\r\nHost: x\r\n" + UPGRADE + body
    websocket = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    data = request * 2 + websocket + GET
    with dial(process) as client:
        for number in range(pieces):
            client.sendall(data[len(data) * number // pieces : len(data) * (number + 1) // pieces])
            time.sleep(0.02)
        received = b""
        while received.count(b"HTTP/1.1 ") < 4 or not received.endswith(b"}"):
            received += client.recv(65_536)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"404", b"404", b"200", b"200"]
    assert not [line for line in process.log if "pgrade" in line]


def test_pipelined_requests_are_answered_in_order_up_to_a_number(process):
    """A few are served; a flood, which would queue up in memory, ends the connection."""
    with dial(process) as client:
        client.sendall(GET * 8)
        client.settimeout(2)
        data = b""
        while data.count(b"200 OK") < 8:
            data += client.recv(65_536)
    with dial(process) as client:
        client.sendall(GET * 2000)
        assert read_all(client).count(b"200 OK") < 100


def test_the_connection_that_was_idle_for_longest_makes_room(process):
    """Idle connections never keep a request, or a probe, out."""
    kept = []
    for _ in range(4):
        kept.append(dial(process))
        kept[-1].sendall(GET)
        assert "200 " in read_answer(kept[-1])
        time.sleep(0.02)
    with dial(process) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        assert read_all(kept[0]) == b""
        for other in kept[1:]:
            other.sendall(GET)
            assert "200 " in read_answer(other)
    for other in kept:
        other.close()


def test_a_connection_goes_on_after_a_refused_upload(process):
    """Whose rest arrives in good time: the next request is served on it."""
    with dial(process) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        assert "404 " in read_answer(client)
        client.sendall(b"x" * 999 + GET)
        assert "200 " in read_answer(client)
        time.sleep(0.1)
        client.sendall(GET)
        assert "200 " in read_answer(client)


@pytest.fixture
def serve(models):
    """Start servers in threads, whose event loops the test can hold; takes settings."""
    running = []

    def start(**options: object) -> Server:
        settings = Settings(model_dir=models, port=0, drain_seconds=0, header_timeout_seconds=5, **options)
        server = make_server(create_app(settings, load=lambda _: make_model()), settings)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return server

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def serving(serve):
    return serve()


@contextlib.contextmanager
def ending(server: Server):
    """End the server right after the body: all that clients do in it still waits in the kernel."""
    reached, opened = threading.Event(), threading.Event()

    async def tick(_: int) -> bool:
        reached.set()
        return opened.wait(10)

    server.on_tick = tick
    assert reached.wait(10)
    yield
    opened.set()


def dial_port(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def test_uploads_that_never_end_keep_nobody_out(serve):
    """Where half-sent bodies take all connections, the one that has been sending for longest makes room."""
    port = serve(max_connections=4).servers[0].sockets[0].getsockname()[1]
    with contextlib.ExitStack() as stack:
        uploads = []
        for _ in range(4):
            uploads.append(stack.enter_context(dial_port(port)))
            uploads[-1].sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx"
            )
            time.sleep(0.05)
        client = stack.enter_context(dial_port(port))
        client.sendall(GET)
        assert "200 " in read_answer(client)
        assert read_all(uploads[0]) == b""
        for upload in uploads[1:]:
            upload.sendall(bytes(8))
            assert "415 " in read_answer(upload)


def test_an_answer_that_nobody_reads_ends_with_its_connection(serving):
    """The kernel gives up on it: the event loop has nothing more to wait for."""
    with dial_port(serving.servers[0].sockets[0].getsockname()[1]) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        (connection,) = serving.server_state.connections
        peer = connection.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_body_after_its_answer_ends(serving, monkeypatch):
    """A refused upload that goes on for ever holds no connection, whether it flows or trickles."""
    monkeypatch.setattr("app.connection._LINGER_SECONDS", 0.5)
    with dial_port(serving.servers[0].sockets[0].getsockname()[1]) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
        assert "404 " in read_answer(client)
        started = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - started < 4:
                client.sendall(b"x")
                time.sleep(0.02)
        assert 0.3 < time.monotonic() - started < 3


@pytest.mark.parametrize("version", ["1.1\r\nConnection: close", "1.0"])
def test_the_last_answer_arrives_though_its_body_still_comes(serving, version):
    """Closing before the body has been read would make the client's kernel drop the answer."""
    port = serving.servers[0].sockets[0].getsockname()[1]
    head = f"POST /predict HTTP/{version}\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 17000000\r\n\r\n"
    for _ in range(5):
        with dial_port(port) as client:
            client.sendall(head.encode() + bytes(17_000_000))  # all of it before anything is read
            started = time.monotonic()
            answer = read_all(client)
            assert b" 413 " in answer
            assert b"connection: close" in answer
            assert time.monotonic() - started < 2


def test_the_answer_to_a_body_that_still_comes_outlives_a_stop(serving):
    """Its connection is kept, and would be closed as idle."""
    with dial_port(serving.servers[0].sockets[0].getsockname()[1]) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000))
        assert client.recv(9, socket.MSG_PEEK) == b"HTTP/1.1 "  # it is there, and not read yet
        with ending(serving):
            pass
        for _ in range(2):
            time.sleep(0.2)
            client.sendall(bytes(250_000))
        assert b" 404 " in read_all(client)


def test_a_connection_is_kept_no_longer_for_a_body_after_its_answer(serve):
    """Once the body has come to its end, the connection is as idle as any other."""
    port = serve(keep_alive_seconds=1).servers[0].sockets[0].getsockname()[1]
    with dial_port(port) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert "404 " in read_answer(client)
        time.sleep(0.2)
        client.sendall(bytes(9))
        started = time.monotonic()
        assert read_all(client) == b""
        assert 0.5 < time.monotonic() - started < 3


@pytest.mark.parametrize("option", ["Connection: close", "X-Kept: yes"])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"0\r\nA: " + 40_000 * b"x", b"5;" + 40_000 * b"e"])
def test_what_is_wrong_with_a_body_after_its_answer_ends_it_quietly(serving, caplog, option, rest):
    """A bad chunk, a large trailer or extension: no second answer, and no traceback."""
    with dial_port(serving.servers[0].sockets[0].getsockname()[1]) as client:
        head = f"POST /nowhere HTTP/1.1\r\nHost: x\r\n{option}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        assert "404 " in read_answer(client)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(rest)
        assert read_all(client) == b""
    assert not [record for record in caplog.records if record.exc_info]


def test_a_body_that_does_not_come_ends_with_its_last_answer(serving, monkeypatch):
    """It is not waited for without end."""
    monkeypatch.setattr("app.connection._LINGER_SECONDS", 0.3)
    with dial_port(serving.servers[0].sockets[0].getsockname()[1]) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nConnection: close\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        assert b" 404 " in read_all(client)
        for _ in range(100):
            if not serving.server_state.connections:
                break
            time.sleep(0.05)
        assert not serving.server_state.connections


def test_requests_that_wait_to_be_accepted_outlive_the_listener(serving):
    """What the kernel has accepted is served: a listener that is just closed resets it."""
    port = serving.servers[0].sockets[0].getsockname()[1]
    with contextlib.ExitStack() as stack:
        with ending(serving):
            clients = [stack.enter_context(dial_port(port)) for _ in range(30)]
            for client in clients[:20]:
                client.sendall(GET)
            for client in clients[20:]:
                client.sendall(GET[:10])
        time.sleep(0.5)
        for client in clients[20:]:
            client.sendall(GET[10:])
        assert [read_all(client)[:12] for client in clients] == [b"HTTP/1.1 200"] * 30
        with pytest.raises(ConnectionRefusedError):
            dial_port(port)


def test_a_request_on_a_kept_connection_outlives_the_listener(serving):
    """It came before the connection was closed, and its client can't know that nobody read it."""
    port = serving.servers[0].sockets[0].getsockname()[1]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial_port(port)) for _ in range(10)]
        for client in clients:
            client.sendall(GET)
            assert "200 " in read_answer(client)
        with ending(serving):
            for client in clients[:5]:
                client.sendall(GET)
        assert [read_all(client)[:12] for client in clients] == [b"HTTP/1.1 200"] * 5 + [b""] * 5


def test_silent_connections_do_not_hold_up_the_end(serving):
    """One that was accepted last has a moment to say something, and no more."""
    port = serving.servers[0].sockets[0].getsockname()[1]
    with dial_port(port) as client:
        time.sleep(0.1)
        started = time.monotonic()
        serving.should_exit = True
        assert read_all(client) == b""
        assert time.monotonic() - started < 3
