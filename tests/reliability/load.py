"""Clients for the reliability tests: HTTP/1.1 over asyncio streams, fast enough to overload a service."""

import asyncio
import io
import json
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.app.fakes import INPUT


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> dict:
        return json.loads(self.body)


class LostError(Exception):
    """A request was accepted and got no complete answer."""


class Client:
    """A client that keeps its connection as long as the service does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request and read its whole answer.

        Raises:
            ConnectionRefusedError: the service accepts no connections.
            LostError: the service accepted this request and did not answer it.
        """
        started = time.monotonic()
        await self.send(method, path, body)
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}
            content = await self._reader.readexactly(int(headers["content-length"]))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            raise LostError(f"{method} {path}: {error!r}") from error
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(status.split()[1]), headers, content, time.monotonic() - started)

    async def send(self, method: str, path: str, body: bytes = b"", *, cut: int | None = None) -> None:
        """Send a request, or its first `cut` bytes, without reading an answer."""
        if self._writer is None or self._writer.is_closing():
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            except ConnectionResetError as error:
                # The listener closed during the handshake, so there was no connection and no request.
                raise ConnectionRefusedError(str(error)) from error
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write((head.encode() + body)[:cut])

    def abort(self) -> None:
        """Disappear like a client whose network fails."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def make_image(rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """Make an image of a unique colour, and the probabilities (3,) that the tiny version gives for it."""
    colour = rng.integers(0, 256, 3, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.broadcast_to(colour, INPUT.shape)).save(buffer, "PNG")
    weights = np.exp(10 * (colour / 255 - 1))
    return buffer.getvalue(), weights / weights.sum()


def is_of(answer: Answer, probabilities: np.ndarray) -> bool:
    """Return whether an answer of the tiny version belongs to this image."""
    given = {entry["label"]: entry["probability"] for entry in answer.json()["predictions"]}
    return bool(np.allclose([given["red"], given["green"], given["blue"]], probabilities, atol=2e-3))


def find_percentile(seconds: list[float], percent: float) -> float:
    return float(np.percentile(seconds, percent))
