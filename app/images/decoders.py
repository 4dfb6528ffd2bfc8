"""Decodes untrusted files in processes with a memory limit and a deadline.

Each process decodes one image at a time. If an image crashes its process, hangs or runs out of memory, only that
image fails, and the process is replaced. The answer is a limited number of plain bytes and is never unpickled, so a
process that a file has taken over can only return wrong pixels.
"""

import asyncio
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from app.errors import BrokenImageError, EmptyUploadError, ImageError, ImageTooLargeError
from app.images.decode import decode_simple
from app.images.worker import ANSWER, COMMAND, OUTCOMES, READY, REQUEST, Limits

RestartReason = Literal["crash", "deadline", "memory", "cancelled"]

_MAX_MESSAGE_BYTES = 1024
_ADVICE = "make it smaller, or save it again as PNG or JPEG"
# One arena, because each thread's arena would reserve 64 MiB. Large buffers return to the system when they are freed.
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}


@dataclass
class _Decoder:
    """This process's end of a decoder process."""

    number: int
    socket: socket.socket
    is_ready: bool = False


class Decoders:
    """A pool of decoder processes, for one event loop (`decode`) or for threads (`decode_blocking`)."""

    def __init__(
        self,
        count: int,
        *,
        max_pixels: int,
        max_bytes: int,
        timeout_seconds: float,
        observe_restart: Callable[[RestartReason], None] = lambda _: None,
    ) -> None:
        """Make a pool. Processes start at `start`, or at the first image that needs one.

        Args:
            count: maximum number of images that `decode` decodes at the same time. `decode_blocking` decodes one per
                calling thread.
            max_pixels: maximum number of pixels in an image's header.
            max_bytes: size of the largest file.
            timeout_seconds: maximum time for one image.
            observe_restart: called with the reason when a process is replaced.
        """
        self.count = count
        self._limits = Limits(max_pixels, max_bytes)
        self._timeout_seconds = timeout_seconds
        self._observe_restart = observe_restart
        self._turns = asyncio.Semaphore(count)
        self._idle: list[_Decoder] = []
        self._lock = threading.Lock()  # guards the next three
        self._forker: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._forked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process that forks decoders, without waiting the quarter of a second until it is ready."""
        with self._lock:
            self._start()

    async def decode(self, data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Decode one image file and fit it to `size` (height, width); see `app.images.decode`.

        Cancelling it kills the process that decodes.

        Returns:
            (height, width, 3) uint8, RGB.

        Raises:
            ImageError, EmptyUploadError: `data` can't be decoded.
        """
        pixels = self._decode_here(data, size)
        if pixels is None:
            async with self._turns:
                with self._borrow() as decoder:
                    pixels = await self._exchange(decoder, data, size)
        return np.frombuffer(pixels, np.uint8).reshape(*size, 3)

    def decode_blocking(self, data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Decode like `decode`, in this thread."""
        pixels = self._decode_here(data, size)
        if pixels is None:
            with self._borrow() as decoder:
                pixels = self._exchange_blocking(decoder, data, size)
        return np.frombuffer(pixels, np.uint8).reshape(*size, 3)

    def close(self) -> None:
        """End all processes and drop their work."""
        with self._lock:
            for decoder in self._idle:
                decoder.socket.close()
            self._idle.clear()
            self._end()

    def _decode_here(self, data: bytes, size: tuple[int, int]) -> bytes | None:
        if not data:
            raise EmptyUploadError("the file is empty; send the image's bytes")
        return decode_simple(data, size, max_pixels=self._limits.max_pixels)

    @contextmanager
    def _borrow(self) -> Iterator[_Decoder]:
        """Borrow a decoder. If it does not finish, kill it and raise the error for the client."""
        decoder = self._take()
        reason: RestartReason | None = "cancelled"
        try:
            yield decoder
        except TimeoutError as error:
            reason = "deadline"
            raise ImageTooLargeError(f"decoding the image takes over {self._timeout_seconds:g} s; {_ADVICE}") from error
        except MemoryError as error:
            reason = "memory"
            raise ImageTooLargeError(f"decoding the image takes too much memory; {_ADVICE}") from error
        except (EOFError, ConnectionError) as error:
            reason = "crash"
            raise BrokenImageError(f"the image can't be decoded; {_ADVICE}") from error
        except ImageError:
            reason = None
            raise
        else:
            reason = None
        finally:
            if reason is None:
                self._idle.append(decoder)
            else:
                self._kill(decoder)
                self._observe_restart(reason)

    def _take(self) -> _Decoder:
        while True:
            try:
                decoder = self._idle.pop()
            except IndexError:
                return self._fork()
            try:
                decoder.socket.settimeout(0)
                decoder.socket.recv(1)
            except BlockingIOError:
                return decoder
            except OSError:
                pass
            decoder.socket.close()  # it has exited

    async def _exchange(self, decoder: _Decoder, data: bytes, size: tuple[int, int]) -> bytes:
        loop = asyncio.get_running_loop()

        async def receive(count: int) -> bytes:
            received = b""
            while len(received) < count:
                piece = await loop.sock_recv(decoder.socket, count - len(received))
                if not piece:
                    raise EOFError
                received += piece
            return received

        if not decoder.is_ready:
            decoder.is_ready = _require_ready(await loop.sock_recv(decoder.socket, 1))
        async with asyncio.timeout(self._timeout_seconds):
            await loop.sock_sendall(decoder.socket, REQUEST.pack(len(data), *size))
            await loop.sock_sendall(decoder.socket, data)
            outcome, count = _read_head(await receive(ANSWER.size), size)
            return _read_content(outcome, await receive(count))

    def _exchange_blocking(self, decoder: _Decoder, data: bytes, size: tuple[int, int]) -> bytes:
        def receive(count: int) -> bytes:
            received = b""
            while len(received) < count:
                piece = decoder.socket.recv(count - len(received))
                if not piece:
                    raise EOFError
                received += piece
            return received

        if not decoder.is_ready:
            decoder.socket.settimeout(None)
            decoder.is_ready = _require_ready(decoder.socket.recv(1))
        decoder.socket.settimeout(self._timeout_seconds)
        decoder.socket.sendall(REQUEST.pack(len(data), *size))
        decoder.socket.sendall(data)
        outcome, count = _read_head(receive(ANSWER.size), size)
        return _read_content(outcome, receive(count))

    def _fork(self) -> _Decoder:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        with theirs, self._lock:
            self._forked += 1
            command = [COMMAND.pack(self._forked)], [theirs.fileno()]
            try:
                socket.send_fds(self._control or self._start(), *command)
            except ConnectionError:  # it was killed, with all decoders
                socket.send_fds(self._start(), *command)
            return _Decoder(self._forked, ours)

    def _kill(self, decoder: _Decoder) -> None:
        decoder.socket.close()
        with self._lock, suppress(ConnectionError):  # if the forking process is gone, so is the decoder
            if self._control:
                self._control.send(COMMAND.pack(decoder.number))

    def _start(self) -> socket.socket:
        self._end()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._forker = subprocess.Popen(
                [sys.executable, "-m", "app.images.worker", *map(str, (theirs.fileno(), *self._limits))],
                cwd=Path(__file__).parents[2], pass_fds=[theirs.fileno()], process_group=0,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                # Without settings, which contain keys.
                env={name: value for name, value in os.environ.items() if not name.startswith("APP_")} | _MALLOC,
            )  # fmt: skip
        return self._control

    def _end(self) -> None:
        if self._control and self._forker:
            self._control.close()
            self._control = None
            self._forker.kill()
            self._forker.wait()


def _require_ready(received: bytes) -> bool:
    if received != READY:
        raise RuntimeError("could not start a process that decodes images")
    return True


def _read_head(head: bytes, size: tuple[int, int]) -> tuple[int, int]:
    """Return the outcome of an answer, and the number of bytes that follow."""
    outcome, count = ANSWER.unpack(head)
    if outcome >= len(OUTCOMES) or count > (_MAX_MESSAGE_BYTES if outcome else math.prod(size) * 3):
        raise ConnectionError
    return outcome, count


def _read_content(outcome: int, content: bytes) -> bytes:
    """Return the pixels, or raise the error."""
    if error := OUTCOMES[outcome]:
        raise error(content.decode(errors="replace"))
    return content
