"""Images for tests, and functions that encode and decode them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw

from app.images.decode import decode_image, read_heic

read_heic()

SIZE = (32, 32)
LIMIT = 50_000_000


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, size: tuple[int, int] = SIZE, max_pixels: int = LIMIT) -> np.ndarray:
    return np.frombuffer(decode_image(data, size, max_pixels=max_pixels), np.uint8).reshape(*size, 3)


def make_halves(size: tuple[int, int]) -> Image.Image:
    """Make an image that is red above and blue below."""
    image = Image.new("RGB", size, "blue")
    ImageDraw.Draw(image).rectangle((0, 0, size[0], size[1] // 2 - 1), "red")
    return image


def write_chunk(kind: bytes, data: bytes) -> bytes:
    """Write a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(bits: int, colour_type: int, rows: list[bytes], chunks: bytes = b"") -> bytes:
    """Write a PNG of 32 x 32 pixels in any bit depth, with chunks before its pixels."""
    head = write_chunk(b"IHDR", struct.pack(">2I5B", 32, 32, bits, colour_type, 0, 0, 0))
    pixels = write_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + chunks + pixels + write_chunk(b"IEND", b"")
