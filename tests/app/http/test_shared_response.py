"""Behaviour of app.http.shared_response."""

import asyncio
import socket

import pytest
from starlette.types import Message

from app.http.shared_response import PIECE_BYTES, SharedResponse
from tests.app.sockets import dial, find_port


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES])
def test_a_body_is_sent_in_pieces(size):
    """Completely and in order, with a Content-Length."""
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(SharedResponse(body)({"type": "http"}, None, send))
    head, *pieces = sent
    assert dict(head["headers"])[b"content-length"] == str(size).encode()
    assert b"".join(piece["body"] for piece in pieces) == body
    assert max(len(piece["body"]) for piece in pieces) <= PIECE_BYTES
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]


def test_clients_that_do_not_read_cost_little_memory(serving):
    """The service buffers a piece or two of a large file for each slow client."""
    [listener] = serving.servers[0].sockets
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384
    )  # inherited by connections; loopback's default is megabytes
    clients = [dial(find_port(serving)) for _ in range(100)]
    for client in clients:
        client.sendall(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for client in clients:
        assert client.recv(9) == b"HTTP/1.1 "
    transports = [connection.transport for connection in serving.server_state.connections]
    assert len(transports) == 100
    assert sum(transport.get_write_buffer_size() for transport in transports) < 100 * 3 * PIECE_BYTES
    for client in clients:
        client.close()
