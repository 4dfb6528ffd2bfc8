"""Behaviour of app.images.formats: which files are decoded beside the event loop."""

import zlib

import pytest
from PIL import Image

from app.images.decode import decode_image
from app.images.formats import SIMPLE_BYTES, is_simple
from tests.app.pictures import LIMIT, SIZE, encode, make_halves, write_chunk

SMALL = make_halves((32, 32))


def insert(png: bytes, name: bytes, data: bytes) -> bytes:
    return png[:33] + write_chunk(name, data) + png[33:]


@pytest.mark.parametrize(
    "data",
    [
        encode(SMALL, "PNG"),
        encode(SMALL, "PNG", dpi=(72, 72)),
        encode(SMALL.quantize(4), "PNG", transparency=0),
        encode(SMALL.convert("RGBA"), "PNG"),
        encode(SMALL, "JPEG"),
        encode(SMALL.convert("L"), "JPEG", comment=b"a comment"),
        encode(make_halves((128, 128)), "JPEG"),
    ],
)
def test_small_plain_pictures_are_simple(data):
    """Of the size that such models take, and with nothing in the file but what is easy to read."""
    assert is_simple(data)


EXIF = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0\0\0\0\0"
JPEG = encode(SMALL, "JPEG")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a text",
        encode(SMALL, "WEBP"),
        encode(SMALL, "GIF"),
        encode(SMALL, "JPEG", progressive=True),
        encode(SMALL, "JPEG", exif=EXIF),
        encode(SMALL, "JPEG", icc_profile=b"x"),
        encode(make_halves((129, 128)), "JPEG"),
        encode(make_halves((129, 128)), "PNG"),
        encode(SMALL, "PNG", exif=EXIF),
        insert(encode(SMALL, "PNG"), b"iCCP", b"x\0\0" + zlib.compress(bytes(10**6))),
        insert(encode(SMALL, "PNG"), b"zTXt", b"x\0\0" + zlib.compress(bytes(10**6))),
        insert(encode(SMALL, "PNG"), b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(10**6))),
        encode(SMALL, "PNG") + bytes(SIMPLE_BYTES),
        JPEG[:-2] + JPEG[JPEG.index(b"\xff\xda") :],
        JPEG[: JPEG.index(b"\xff\xda")],
        JPEG[:2] + b"\xff\xe0\0\0" * 500,
    ],
)
def test_what_has_to_be_parsed_or_is_large_is_not_simple(data):
    """Containers, descriptions, what unpacks, several scans: a decoder process takes those."""
    assert not is_simple(data)


def test_what_is_simple_stays_within_a_picture_of_that_size():
    """The header that Pillow goes by is the one that was looked at."""
    twice = write_chunk(b"IHDR", (30_000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0")
    png = encode(SMALL, "PNG")
    assert not is_simple(png[:33] + twice + png[33:])
    frame = JPEG.index(b"\xff\xc0")
    segment = bytearray(JPEG[frame : frame + 19])
    segment[5:9] = (30_000).to_bytes(2, "big") * 2
    assert not is_simple(JPEG[: frame + 19] + bytes(segment) + JPEG[frame + 19 :])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_whatever_is_simple_decodes_in_no_time(kind):
    """A file of that many bytes can't make more of itself."""
    noise = encode(Image.effect_noise((50, 50), 90), kind)
    assert is_simple(noise)
    assert len(decode_image(noise, SIZE, max_pixels=LIMIT)) == 32 * 32 * 3
