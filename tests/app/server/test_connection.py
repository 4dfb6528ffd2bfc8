"""Behaviour of app.server.connection: what a connection may cost, over real sockets."""

import asyncio
import contextlib
import re
import socket
import threading
import time

import pytest

from tests.app.process import Process
from tests.app.sockets import GET, check_refused, dial, find_port, read_all, read_answer


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


def count_hang_ups(process: Process) -> dict[str, int]:
    connection = process.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {m[1]: int(float(m[2])) for m in re.finditer(r'hang_ups_total\{reason="(\w+)"\} (\S+)', text)}


def test_a_head_that_trickles_is_cut(process):
    """A byte now and then does not put the deadline off."""
    with dial(process.port) as client:
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
    check_refused(answer, 408, "header_timeout")


def test_a_second_head_that_trickles_is_cut(process):
    """The deadline is the same on a connection that was kept."""
    with dial(process.port) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        time.sleep(0.8)  # idle for longer than a head may take: that is what keeping a connection is for
        client.sendall(GET[:10])
        check_refused(read_all(client), 408, "header_timeout")


def test_a_silent_connection_is_closed(process):
    """Nothing was asked, so nothing is answered."""
    before = count_hang_ups(process).get("silent", 0)
    with dial(process.port) as client:
        assert read_all(client) == b""
    assert count_hang_ups(process)["silent"] == before + 1


def test_pipelined_requests_are_answered_in_order_up_to_a_number(process):
    """A few are served; a flood, which would queue up in memory, ends the connection."""
    with dial(process.port) as client:
        client.sendall(GET * 8)
        client.settimeout(2)
        data = b""
        while data.count(b"200 OK") < 8:
            data += client.recv(65_536)
    with dial(process.port) as client:
        client.sendall(GET * 2000)
        assert read_all(client).count(b"200 OK") < 100


def test_the_connection_that_was_idle_for_longest_makes_room(process):
    """Idle connections never keep a request, or a probe, out."""
    kept = []
    for _ in range(4):
        kept.append(dial(process.port))
        kept[-1].sendall(GET)
        assert "200 " in read_answer(kept[-1])
        time.sleep(0.02)
    with dial(process.port) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        assert read_all(kept[0]) == b""
        for other in kept[1:]:
            other.sendall(GET)
            assert "200 " in read_answer(other)
    for other in kept:
        other.close()


def test_uploads_that_never_end_keep_nobody_out(serve):
    """Where half-sent bodies take all connections, the one that has been sending for longest makes room."""
    port = find_port(serve(max_connections=4))
    with contextlib.ExitStack() as stack:
        uploads = []
        for _ in range(4):
            uploads.append(stack.enter_context(dial(port)))
            uploads[-1].sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nx"
            )
            time.sleep(0.05)
        client = stack.enter_context(dial(port))
        client.sendall(GET)
        assert "200 " in read_answer(client)
        assert read_all(uploads[0]) == b""
        for upload in uploads[1:]:
            upload.sendall(bytes(8))
            assert "415 " in read_answer(upload)


def test_clients_that_read_nothing_keep_nobody_out(serve):
    """Where answers that nobody reads take all connections, the one that has waited for longest makes room."""
    server = serve(max_connections=3)
    port = find_port(server)
    request = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", port))
            reader.sendall(8 * request)
        while sum(kept.unread_since is not None for kept in list(server.server_state.connections)) < 3:
            time.sleep(0.01)
        for _ in range(3):
            client = stack.enter_context(dial(port))
            client.sendall(GET)
            assert "200 " in read_answer(client)


def test_an_answer_that_nobody_reads_ends_with_its_connection(serving):
    """The kernel gives up on it: the event loop has nothing more to wait for."""
    with dial(find_port(serving)) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        (connection,) = serving.server_state.connections
        peer = connection.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_a_request_is_measured_from_its_head_on(serving, monkeypatch):
    """What it waits before it is started counts."""
    monkeypatch.setattr(
        "app.inference.turns.Turns.call", lambda _, start: asyncio.get_running_loop().call_later(0.3, start)
    )
    with dial(find_port(serving)) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert read_answer(client).startswith("404 ")
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        [seconds] = re.findall(r'request_seconds_sum\{route="none"\} (\S+)', read_answer(client))
    assert float(seconds) > 0.29  # timers may be a millisecond early


def test_a_probe_overtakes_a_crowd_that_sends(serving):
    """What is to be worked on starts a few at a time; what is but asked for, at once."""
    order = []

    async def answer(scope, _, send) -> None:
        order.append(scope["method"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    serving.config.loaded_app = answer
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(find_port(serving))) for _ in range(50)]
        while len(serving.server_state.connections) < len(clients):
            time.sleep(0.01)
        sent = threading.Event()
        serving.servers[0].get_loop().call_soon_threadsafe(sent.wait, 10)
        for client in clients[:-1]:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        clients[-1].sendall(GET)
        sent.set()
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 204"
    assert order.index("GET") < 10


def test_nothing_is_left_of_a_body_that_nobody_read(serving):
    """The connection may be kept for a minute, with a thousand others."""
    with dial(find_port(serving)) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000))
        assert read_answer(client).startswith("404 ")
        (connection,) = serving.server_state.connections
        assert len(connection.cycle.body) == 0
