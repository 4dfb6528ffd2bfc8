"""The decoder processes: `python -m app.images.worker`, which `app.images.decoders` starts.

One process imports the libraries and then only forks, so that a decoder starts in milliseconds and shares its memory
with the others. A decoder answers one request after the other until its socket closes. It has no other file
descriptor, can't open one, and has memory for one image.
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
from app.images.decode import decode_image, read_heic

# To the forking process: fork the decoder of this number (with a socket) or kill it (without).
COMMAND = struct.Struct("<I")
# From a decoder: it is ready.
READY = b"\1"
# To a decoder: the number of bytes of the file that follow; height and width of the result.
REQUEST = struct.Struct("<III")
# From a decoder: the outcome (an index of `OUTCOMES`), and the number of bytes that follow: pixels or an error message.
ANSWER = struct.Struct("<BI")
OUTCOMES: tuple[type[ImageError | MemoryError] | None, ...] = (
    None, BrokenImageError, ImageTooLargeError, UnsupportedImageError, MemoryError,
)  # fmt: skip

_STDOUT, _STDERR, _SOCKET = 1, 2, 3
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


WORKING_BYTES = 24 * 2**20  # for libraries, independent of the image's size
_BYTES_PER_PIXEL = 4  # of a decoded image
# The measured maximum over all formats: WebP keeps two canvases, and Pillow two copies of the result.
_MAX_BYTES_PER_PIXEL = 16
_MAX_COPIES = 3  # of the file, in Pillow and the format's library

_LIBC = ctypes.CDLL(None)
_find_errno = _LIBC["__errno_location"]
_find_errno.restype = ctypes.POINTER(ctypes.c_int)


class Limits(NamedTuple):
    """Limits of one image."""

    max_pixels: int  # in the header
    max_bytes: int  # of the file

    @property
    def memory_bytes(self) -> int:
        """Return the memory that a decoder may take for an image."""
        return _BYTES_PER_PIXEL * self.max_pixels + self.max_bytes + WORKING_BYTES


def main(control: socket.socket, limits: Limits) -> None:
    """Fork and kill decoders by command, until the control socket closes."""
    # A terminal or a service manager may signal all processes of a service; these end when the service does.
    for which in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(which, signal.SIG_IGN)
    read_heic()
    os.dup2(_STDOUT, _STDERR)  # libraries write messages about files there; it may be closed
    decoders: dict[int, int] = {}  # process ids, by number
    while True:
        message, descriptors, *_ = socket.recv_fds(control, COMMAND.size, 1)
        for number, process in list(decoders.items()):
            if os.waitpid(process, os.WNOHANG)[0]:  # until here, no other process can get its id
                del decoders[number]
        if not message:
            return
        (number,) = COMMAND.unpack(message)
        if not descriptors:
            if process := decoders.pop(number, 0):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)  # so that its memory is free before another one starts
            continue
        try:
            process = os.fork()
        except OSError:  # the limit of processes; the other end of the socket sees it close
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
    """Answer requests on `connection` until it closes."""
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
    """Decode with the memory that an image of the size in its header needs.

    So a small header can't hide a large image.
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
        # Libraries report a failed allocation as a damaged image.
        if resource.getrlimit(resource.RLIMIT_AS)[0] < most:
            raise BrokenImageError("the image is larger than its header says; save it again as PNG or JPEG") from error
        raise MemoryError from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _confine(memory_bytes: int) -> None:
    """Drop the rights and resources that decoding does not need."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # so that it never outlives the forking process
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    # If a container runs out of memory, the kernel ends a decoder, not the service.
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    for limit, most in (
        (resource.RLIMIT_AS, used + memory_bytes),
        (resource.RLIMIT_NOFILE, _SOCKET + 1),  # it can open no file and no connection
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), Limits(*map(int, sys.argv[2:])))
