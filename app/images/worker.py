"""The processes that decode: `python -m app.images.worker`, which `app.images.decoders` starts.

One process imports all that decoding needs and then only forks, so that a decoder is there within milliseconds and
shares its memory with the others. A decoder answers one request after the other until its socket ends. It has neither
descriptors but that socket nor the right to more, and as much memory as one image may take.
"""

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from app.errors import BrokenImageError, ImageError, ImageTooLargeError, UnsupportedImageError
from app.images.decode import decode_image

# To the forking process: fork (with a decoder's end of a socket) or kill (without) the decoder of this number.
COMMAND = struct.Struct("<I")
# What a decoder sends once it is ready to decode.
READY = b"\1"
# To a decoder: how many bytes of image follow; height and width of the result.
REQUEST = struct.Struct("<III")
# From a decoder: how it went (an index of `OUTCOMES`), and how many bytes follow: pixels, or why there are none.
ANSWER = struct.Struct("<BI")
OUTCOMES: tuple[type[ImageError | MemoryError] | None, ...] = (
    None, BrokenImageError, ImageTooLargeError, UnsupportedImageError, MemoryError,
)  # fmt: skip

_SOCKET = 3  # the descriptor behind those of the standard streams
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


WORKING_BYTES = 24 * 2**20  # of libraries, whatever the image's size
_BYTES_PER_PIXEL = 4  # of a decoded image
# The most that was measured of the formats that are read: WebP keeps two canvases, Pillow two copies of the result.
_MAX_BYTES_PER_PIXEL = 16
_MAX_COPIES = 3  # of the file, by Pillow and the format's library

_LIBC = ctypes.CDLL(None)
_find_errno = _LIBC["__errno_location"]
_find_errno.restype = ctypes.POINTER(ctypes.c_int)


class Limits(NamedTuple):
    """What one image may have."""

    max_pixels: int  # by its header
    max_bytes: int  # as a file

    @property
    def memory_bytes(self) -> int:
        """Return how much memory a decoder may take for it."""
        return _BYTES_PER_PIXEL * self.max_pixels + self.max_bytes + WORKING_BYTES


def main(control: socket.socket, limits: Limits) -> None:
    """Fork and kill decoders as told, until nobody is there to tell."""
    # A terminal, or whoever stops a service, may signal all of its processes; these end when the service does.
    for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(which, signal.SIG_IGN)
    os.dup2(sys.stdout.fileno(), sys.stderr.fileno())  # libraries write about files there
    decoders: dict[int, int] = {}  # process ids, by number
    while True:
        message, descriptors, *_ = socket.recv_fds(control, COMMAND.size, 1)
        for number, process in list(decoders.items()):
            if os.waitpid(process, os.WNOHANG)[0]:  # so that no other process can have its id
                del decoders[number]
        if not message:
            return
        (number,) = COMMAND.unpack(message)
        if not descriptors:
            if process := decoders.pop(number, 0):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)  # it has given its memory back before another one starts
            continue
        try:
            process = os.fork()
        except OSError:  # there may be no more processes; who waits for this one meets the end of its socket
            os.close(descriptors[0])
            continue
        if process:
            os.close(descriptors[0])
            decoders[number] = process
        else:
            os.dup2(descriptors[0], _SOCKET)
            os.closerange(_SOCKET + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            _confine(limits.memory_bytes)
            serve(socket.socket(fileno=_SOCKET), limits)
            os._exit(0)


def serve(connection: socket.socket, limits: Limits) -> None:
    """Decode what comes over `connection` until it ends."""
    reader = connection.makefile("rb")
    connection.sendall(READY)
    while head := reader.read(REQUEST.size):
        length, height, width = REQUEST.unpack(head)
        error: type[ImageError | MemoryError] | None = None
        try:
            content = _decode(reader.read(length), (height, width), limits)
        except ImageError as refusal:
            error, content = type(refusal), str(refusal).encode()
        except MemoryError:
            error, content = MemoryError, b""
        connection.sendall(ANSWER.pack(OUTCOMES.index(error), len(content)) + content)


def _decode(data: bytes, size: tuple[int, int], limits: Limits) -> bytes:
    """Decode within the memory that an image of the size in its header can need.

    So a file can't hide a large picture behind the header of a small one.
    """
    most = resource.getrlimit(resource.RLIMIT_AS)[1]

    def allow(pixels: int) -> None:
        needed = WORKING_BYTES + _MAX_COPIES * len(data) + _MAX_BYTES_PER_PIXEL * pixels
        resource.setrlimit(resource.RLIMIT_AS, (min(most, most - limits.memory_bytes + needed), most))

    code = _find_errno().contents
    code.value = 0
    try:
        return decode_image(data, size, max_pixels=limits.max_pixels, before_pixels=allow)
    except (BrokenImageError, MemoryError) as error:
        if isinstance(error, BrokenImageError) and code.value != errno.ENOMEM:
            raise
        # Libraries call it a damaged image when they get no memory, each in its own words.
        if resource.getrlimit(resource.RLIMIT_AS)[0] < most:
            raise BrokenImageError("the image is larger than its header says; save it anew as PNG or JPEG") from error
        raise MemoryError from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _confine(memory_bytes: int) -> None:
    """Take from this process what decoding does not need."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # so that it never outlives who could end it
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    # If all memory of a container is taken, the kernel ends a decoder, not the service.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    for limit, most in (
        (resource.RLIMIT_AS, used + memory_bytes),
        (resource.RLIMIT_NOFILE, _SOCKET + 1),  # no file and no connection can be opened
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), Limits(*map(int, sys.argv[2:])))
