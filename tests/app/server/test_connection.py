"""Behaviour of app.server.connection: deadlines and limits of connections, over real sockets."""

import asyncio
import contextlib
import re
import socket
import threading
import time

import pytest

from app.server.connection import State
from tests.app.fakes import HeldModel, encode
from tests.app.process import Process
from tests.app.sockets import GET, check_refused, dial, find_port, read_all, read_answer


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A service without a model and with short deadlines."""
    process = Process(
        model_dir=tmp_path_factory.mktemp("models"),
        header_timeout_seconds=0.5,
        keep_alive_seconds=30,
        max_connections=4,
    )
    yield process
    process.end()


def count_hang_ups(process: Process) -> dict[str, int]:
    time.sleep(1.1)  # metrics are rendered once a second
    connection = process.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {m[1]: int(float(m[2])) for m in re.finditer(r'hang_ups_total\{reason="(\w+)"\} (\S+)', text)}


def receive(client: socket.socket) -> bytes:
    data = client.recv(65_536)
    assert data, "the service has closed the connection"
    return data


def test_a_slow_request_head_times_out(process):
    """Sending a byte now and then does not extend the deadline."""
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


def test_a_slow_second_request_head_times_out(process):
    """The deadline is the same on a kept connection."""
    with dial(process.port) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        time.sleep(0.8)  # longer than the deadline of a head, which does not apply to an idle connection
        client.sendall(GET[:10])
        check_refused(read_all(client), 408, "header_timeout")


def test_a_silent_connection_is_closed(process):
    """Without an answer, because there was no request."""
    before = count_hang_ups(process).get("silent", 0)
    with dial(process.port) as client:
        assert read_all(client) == b""
    assert count_hang_ups(process)["silent"] == before + 1


def test_pipelined_requests_are_answered_in_order(process):
    """However many there are, and wherever reads split them."""
    with dial(process.port) as client:
        client.sendall(GET * 1000)
        client.settimeout(5)
        data = b""
        while data.count(b'"alive"}') < 1000:
            data += receive(client)
    assert data.count(b"HTTP/1.1 200 OK") == 1000


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("cut", range(1, 100, 6))
def test_the_end_of_a_request_is_found_wherever_reads_split_it(process, framing, cut):
    """Of a head, a body with a length, and a chunked body."""
    data = (b"POST /nowhere HTTP/1.1\r\nHost: x\r\n" + framing + GET) * 2
    with dial(process.port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(data[:cut])
        time.sleep(0.002)
        client.sendall(data[cut:])
        client.settimeout(5)
        received = b""
        while len(re.findall(rb'"alive"}', received)) < 2:
            received += receive(client)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"404", b"200"] * 2


def test_nothing_is_read_behind_a_request_until_it_is_answered(serve):
    """A pipelined body stays in the kernel, where it takes no memory of the service."""
    held = HeldModel()
    server = serve(held)
    image = encode("blue")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    with dial(find_port(server)) as client:
        client.sendall(head % len(image) + image + head % 10_000_000)
        assert held.reached.wait(10)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(10_000_000))
        (connection,) = server.server_state.connections
        assert connection.state is State.ANSWER
        assert len(connection._ahead) < 50_000
        assert not connection.cycle.body
        held.opened.set()
        client.settimeout(10)
        assert read_answer(client).startswith("200 ")


def test_the_connection_that_was_idle_for_longest_makes_room(process):
    """So idle connections never block a request."""
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


def test_uploads_that_never_end_make_room_for_others(serve):
    """If all connections send a body, the one that has been sending for longest is closed."""
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


def test_a_burst_of_connections_stays_within_the_limit(serve):
    """Each new connection evicts another one, which is counted once."""
    server = serve(max_connections=10)
    port = find_port(server)
    loop = server.servers[0].get_loop()
    open_at_most = 0
    with contextlib.ExitStack() as stack:
        for _ in range(9):
            kept = stack.enter_context(dial(port))
            kept.sendall(GET)
            assert "200 " in read_answer(kept)
        dialled = threading.Event()
        loop.call_soon_threadsafe(dialled.wait, 10)
        for _ in range(200):
            stack.enter_context(dial(port))

        def watch() -> None:
            nonlocal open_at_most
            open_at_most = max(open_at_most, len(server.server_state.connections))
            loop.call_soon(watch)

        loop.call_soon_threadsafe(watch)
        dialled.set()
        reasons = server.config.app.state.metrics._hang_ups
        for _ in range(200):
            if (count := reasons.labels("too_many_connections")._value.get()) >= 199:
                break
            time.sleep(0.01)
        time.sleep(0.1)
        assert reasons.labels("too_many_connections")._value.get() == count == 9 + 200 - 10
    assert open_at_most == 10


def test_an_answer_that_nobody_reads_ends_with_its_connection(serving):
    """The kernel resets the connection, so an unread answer does not delay the stop of the service either."""
    with dial(find_port(serving)) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        (connection,) = serving.server_state.connections
        peer = connection.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_answers_are_sent_without_delay(serving):
    """Nagle's algorithm would delay the second write of an answer until the first one is acknowledged."""
    with dial(find_port(serving)) as client:
        client.sendall(GET)
        assert "200 " in read_answer(client)
        (connection,) = serving.server_state.connections
        peer = connection.transport.get_extra_info("socket")
        assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_memory_of_an_unread_body_is_freed(serving):
    """Otherwise a thousand kept connections would hold it for a minute."""
    with dial(find_port(serving)) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000))
        assert read_answer(client).startswith("404 ")
        (connection,) = serving.server_state.connections
        for _ in range(200):
            if not connection.cycle.body:
                break
            time.sleep(0.01)
        assert len(connection.cycle.body) == 0


def test_an_answer_is_one_write(serving, monkeypatch):
    """Its head and body take one system call and, if they are small, one packet."""
    writes = []
    write = asyncio.selector_events._SelectorSocketTransport.write
    monkeypatch.setattr(
        asyncio.selector_events._SelectorSocketTransport,
        "write",
        lambda transport, data: (writes.append(bytes(data)), write(transport, data)),
    )
    with dial(find_port(serving)) as client:
        client.sendall(GET + GET.replace(b"GET", b"HEAD") + GET)
        client.settimeout(5)
        received = b""
        while received.count(b"alive") < 2:
            received += receive(client)
    assert [data.count(b"HTTP/1.1 200 OK") for data in writes] == [1, 1, 1]
    assert [data.endswith(b'"alive"}') for data in writes] == [True, False, True]
