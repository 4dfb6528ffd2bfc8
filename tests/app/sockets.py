"""Clients that send and read exact bytes."""

import json
import socket
from http.client import HTTPResponse

from app.server.lifecycle import Server

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def find_port(server: Server) -> int:
    return server.servers[0].sockets[0].getsockname()[1]


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(client: socket.socket) -> bytes:
    """Read until the service closes or resets the connection."""
    data = b""
    try:
        while part := client.recv(65_536):
            data += part
    except ConnectionResetError:
        pass
    return data


def read_answer(client: socket.socket) -> str:
    """Read one whole answer."""
    answer = HTTPResponse(client)
    answer.begin()
    return f"{answer.status} {answer.read().decode()}"


def check_refused(answer: bytes, status: int, code: str) -> str:
    """Check the answer to a request that could not be parsed; return its detail."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"application/problem+json" in head
    assert b"connection: close" in head
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
    detail: str = problem["detail"]
    return detail
