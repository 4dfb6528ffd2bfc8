"""Behaviour of app.server at the end of connections: after the last answer, and when the service stops."""

import contextlib
import gc
import logging
import re
import socket
import struct
import threading
import time

import pytest

from app.server.connection import Connection
from app.server.lifecycle import Server
from tests.app.fakes import encode, tell_colours
from tests.app.sockets import GET, dial, find_port, read_all, read_answer


@contextlib.contextmanager
def ending(server: Server):
    """Stop the server right after the `with` body. What clients send in it is still in the kernel then."""
    reached, opened = threading.Event(), threading.Event()

    async def tick(_: int) -> bool:
        reached.set()
        return opened.wait(10)

    server.on_tick = tick
    assert reached.wait(10)
    yield
    opened.set()


def test_a_connection_continues_after_a_refused_upload(serving):
    """If the rest of the upload arrives in time, the next request is served."""
    with dial(find_port(serving)) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        assert "404 " in read_answer(client)
        client.sendall(b"x" * 999 + GET)
        assert "200 " in read_answer(client)
        time.sleep(0.1)
        client.sendall(GET)
        assert "200 " in read_answer(client)


def test_a_body_that_continues_after_its_answer_is_limited(serving, monkeypatch):
    """A refused upload that never ends does not hold the connection."""
    monkeypatch.setattr("app.server.connection._LINGER_SECONDS", 0.5)
    with dial(find_port(serving)) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
        assert "404 " in read_answer(client)
        started = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - started < 4:
                client.sendall(b"x")
                time.sleep(0.02)
        assert 0.3 < time.monotonic() - started < 3


@pytest.mark.parametrize("version", ["1.1\r\nConnection: close", "1.0"])
def test_the_last_answer_arrives_while_its_body_is_still_sent(serving, version):
    """If the service closed before it has read the body, the client's kernel would drop the answer."""
    port = find_port(serving)
    head = f"POST /predict HTTP/{version}\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 17000000\r\n\r\n"
    for _ in range(5):
        with dial(port) as client:
            client.sendall(head.encode() + bytes(17_000_000))  # all of it before anything is read
            started = time.monotonic()
            answer = read_all(client)
            assert b" 413 " in answer
            assert b"connection: close" in answer
            assert time.monotonic() - started < 2


def test_an_answer_before_the_end_of_its_body_survives_a_stop(serving):
    """Its connection is not closed as idle."""
    with dial(find_port(serving)) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(500_000))
        assert client.recv(9, socket.MSG_PEEK) == b"HTTP/1.1 "  # it has arrived, and is not read yet
        with ending(serving):
            pass
        for _ in range(2):
            time.sleep(0.2)
            client.sendall(bytes(250_000))
        assert b" 404 " in read_all(client)


def test_a_connection_is_kept_no_longer_for_a_body_after_its_answer(serve):
    """After the end of the body, the keep-alive timeout applies."""
    port = find_port(serve(keep_alive_seconds=1))
    with dial(port) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert "404 " in read_answer(client)
        time.sleep(0.2)
        client.sendall(bytes(9))
        started = time.monotonic()
        assert read_all(client) == b""
        assert 0.5 < time.monotonic() - started < 3


@pytest.mark.parametrize("option", ["Connection: close", "X-Kept: yes"])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"0\r\nA: " + 40_000 * b"x", b"5;" + 40_000 * b"e"])
def test_an_error_in_a_body_after_its_answer_closes_the_connection_quietly(serving, caplog, option, rest):
    """After a bad chunk, a large trailer or extension there is no second answer and no traceback."""
    with dial(find_port(serving)) as client:
        head = f"POST /nowhere HTTP/1.1\r\nHost: x\r\n{option}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        assert "404 " in read_answer(client)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(rest)
        assert read_all(client) == b""
    assert not [record for record in caplog.records if record.exc_info]


def test_a_missing_body_does_not_hold_the_connection_after_its_answer(serving, monkeypatch):
    """The service waits for it only for a limited time."""
    monkeypatch.setattr("app.server.connection._LINGER_SECONDS", 0.3)
    with dial(find_port(serving)) as client:
        client.sendall(b"POST /nowhere HTTP/1.1\r\nConnection: close\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        assert b" 404 " in read_all(client)
        for _ in range(100):
            if not serving.server_state.connections:
                break
            time.sleep(0.05)
        assert not serving.server_state.connections


@pytest.fixture
def slow(serve):
    """A server whose model takes half a second."""
    return serve(lambda images: (time.sleep(0.5), tell_colours(images))[1])


POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%b" % (
    len(encode("blue")),
    encode("blue"),
)


@pytest.mark.parametrize(
    ("rest", "statuses"),
    [
        (b"\0junk\r\n\r\n", [b"200", b"400"]),
        (GET.replace(b"\r\n", b"\r\nHost: y\r\n", 1), [b"200", b"400"]),
        (GET + b"\0junk\r\n\r\n", [b"200", b"200", b"400"]),
    ],
)
def test_a_malformed_pipelined_request_does_not_affect_earlier_answers(slow, rest, statuses):
    """Each request is answered in order, and the connection ends after the malformed one."""
    with dial(find_port(slow)) as client:
        client.sendall(POST)
        time.sleep(0.1)
        client.sendall(rest)
        data = read_all(client)
    assert re.findall(rb"HTTP/1.1 (\d+)", data) == statuses
    assert b'"label":"blue"' in data
    assert data.count(b"connection: close") == 1


def test_a_disconnect_is_noticed(slow, caplog):
    """The answer is dropped without a traceback."""
    caplog.set_level(logging.INFO)
    with dial(find_port(slow)) as client:
        client.sendall(POST)
        time.sleep(0.2)
    time.sleep(0.2)
    (line,) = [record for record in caplog.records if record.name == "app.request"]
    assert line.status == 499
    assert not [record for record in caplog.records if record.exc_info]


def test_a_head_that_has_begun_may_finish_during_the_stop(serving):
    """Only the first byte has a shorter deadline then, not the head."""
    with dial(find_port(serving)) as client:
        time.sleep(0.2)
        serving.should_exit = True
        time.sleep(0.5)
        client.sendall(GET[:20])
        time.sleep(1.2)
        client.sendall(GET[20:])
        assert b" 200 " in read_all(client)


def test_requests_that_wait_to_be_accepted_outlive_the_listener(serving):
    """Closing the listener alone would reset what the kernel has accepted."""
    port = find_port(serving)
    with contextlib.ExitStack() as stack:
        with ending(serving):
            clients = [stack.enter_context(dial(port)) for _ in range(30)]
            for client in clients[:20]:
                client.sendall(GET)
            for client in clients[20:]:
                client.sendall(GET[:10])
        time.sleep(0.5)
        for client in clients[20:]:
            client.sendall(GET[10:])
        assert [read_all(client)[:12] for client in clients] == [b"HTTP/1.1 200"] * 30
        with pytest.raises(ConnectionRefusedError):
            dial(port)


def test_a_request_on_a_kept_connection_outlives_the_listener(serving):
    """It arrived before the connection was closed, and its client can't know that it was not read."""
    port = find_port(serving)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(port)) for _ in range(10)]
        for client in clients:
            client.sendall(GET)
            assert "200 " in read_answer(client)
        with ending(serving):
            for client in clients[:5]:
                client.sendall(GET)
        assert [read_all(client)[:12] for client in clients] == [b"HTTP/1.1 200"] * 5 + [b""] * 5


def test_silent_connections_do_not_delay_the_stop(serving):
    """A new connection has a second to send its first byte."""
    port = find_port(serving)
    with dial(port) as client:
        time.sleep(0.1)
        started = time.monotonic()
        serving.should_exit = True
        assert read_all(client) == b""
        assert time.monotonic() - started < 3


def test_a_connection_that_was_reset_is_freed(serving):
    """Its timer, which would keep it alive, is cancelled."""
    for _ in range(5):
        with dial(find_port(serving)) as client:
            client.sendall(GET)
            assert client.recv(12) == b"HTTP/1.1 200"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(200):
        gc.collect()
        if (left := sum(isinstance(kept, Connection) for kept in gc.get_objects())) < 2:
            break
        time.sleep(0.01)
    assert left < 2  # the event loop still holds the last one
