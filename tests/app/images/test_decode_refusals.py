"""Behaviour of app.images.decode: the images that it refuses."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from app.errors import BrokenImageError, EmptyUploadError, ImageTooLargeError, UnsupportedImageError
from app.images.decode import FORMATS
from tests.app.pictures import SIZE, decode, encode, make_halves

# For the person who sent the image: no library's wording, no byte counts.
CUT = (
    "^the image('s header)? is damaged or cut short(; send the whole file"
    "|, or uses a rare variant of its format; send the whole file, or save it again as PNG or JPEG)$"
)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_that_is_cut_short_is_broken(kind):
    """Wherever it is cut."""
    data = encode(Image.effect_noise((200, 200), 90).convert("RGB"), kind)
    for end in (len(data) // 2, 40, 20):
        with pytest.raises(BrokenImageError, match=CUT):
            decode(data[:end])


@pytest.mark.parametrize(
    "data", [b"a text that is called photo.png", b"\0", b"%PDF-1.7 ...", b"<svg></svg>", b"\xff\xd8"]
)
def test_other_files_are_unsupported(data):
    """The bytes decide. The error names the supported formats."""
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG, WebP, GIF, BMP, AVIF"):
        decode(data)


def test_formats_outside_the_allow_list_are_unsupported():
    """Even if Pillow reads them."""
    for kind in ("TIFF", "ICO", "PPM", "TGA"):
        with pytest.raises(UnsupportedImageError):
            decode(encode(Image.new("RGB", (8, 8)), kind))


def test_an_empty_file_is_an_empty_upload():
    """Not a broken image."""
    with pytest.raises(EmptyUploadError):
        decode(b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_with_too_many_pixels_is_refused_by_its_header(kind, monkeypatch):
    """Before any pixel is decoded."""
    data = encode(Image.new("RGB", (200, 100)), kind)
    decode(data, max_pixels=20_000)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageTooLargeError, match="200 x 100"):
        decode(data, max_pixels=19_999)


def test_an_image_above_pillows_own_limit_is_too_large():
    """Pillow's error for headers with gigapixels becomes the service's."""
    bomb = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    bomb[16:24] = (40_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(ImageTooLargeError):
        decode(bytes(bomb))


def make_png(*chunks: tuple[bytes, bytes], side: int = 8) -> bytes:
    """Write a square palette image with these chunks before its pixels."""
    pixels = zlib.compress(bytes(1 + side) * side)
    written = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0)),
        *chunks,
        (b"IDAT", pixels),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in written
    )


@pytest.mark.parametrize("side", [8, 32, 200])
@pytest.mark.parametrize("chunks", [(), ((b"tRNS", bytes(9)),)])
def test_an_image_without_its_palette_is_broken(side, chunks):
    """Pillow notices only when it converts decoded pixels, or invents a palette."""
    assert decode(make_png((b"PLTE", bytes(768)), side=side)).shape == (*SIZE, 3)
    with pytest.raises(BrokenImageError):
        decode(make_png(*chunks, side=side))


def test_damaged_bytes_give_an_image_or_an_image_error():
    """Whichever byte is changed."""
    random = np.random.default_rng(2)
    for kind in FORMATS:
        data = np.frombuffer(encode(make_halves((20, 20)), kind), dtype=np.uint8)
        for _ in range(40):
            damaged = data.copy()
            damaged[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
            with contextlib.suppress(BrokenImageError, UnsupportedImageError, ImageTooLargeError):
                decode(damaged.tobytes())
