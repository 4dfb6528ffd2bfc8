"""Behaviour of app.images.formats: which files the service decodes itself."""

import zlib

import numpy as np
import pytest
from PIL import Image

from app.errors import UnsupportedImageError
from app.images.decode import decode_image
from app.images.formats import FORMAT_NAMES, SIMPLE_BYTES, describe_unsupported, is_simple
from tests.app.pictures import LIMIT, SIZE, decode, encode, make_halves, write_chunk

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
def test_small_plain_images_are_simple(data):
    """Of the sizes that models take, with nothing in the file that is hard to parse."""
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
def test_large_or_complex_images_are_not_simple(data):
    """Containers, EXIF, compressed chunks and several scans go to a decoder."""
    assert not is_simple(data)


def test_pillow_reads_the_size_that_was_checked():
    """Another header in the file does not replace it."""
    twice = write_chunk(b"IHDR", (30_000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0")
    png = encode(SMALL, "PNG")
    assert not is_simple(png[:33] + twice + png[33:])
    frame = JPEG.index(b"\xff\xc0")
    segment = bytearray(JPEG[frame : frame + 19])
    segment[5:9] = (30_000).to_bytes(2, "big") * 2
    assert not is_simple(JPEG[: frame + 19] + bytes(segment) + JPEG[frame + 19 :])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_simple_files_decode_quickly(kind):
    """A file of so few bytes can't contain a bomb."""
    noise = encode(Image.effect_noise((50, 50), 90), kind)
    assert is_simple(noise)
    assert len(decode_image(noise, SIZE, max_pixels=LIMIT)) == 32 * 32 * 3


def change_frame(marker: int, bits: int) -> bytes:
    """Change the frame header of a JPEG."""
    data = bytearray(JPEG)
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (change_frame(0xC1, 12), "a JPEG with 12 bits per sample"),
        (change_frame(0xC2, 12), "a JPEG with 12 bits per sample"),
        (change_frame(0xF7, 8), "a JPEG-LS"),
        (encode(SMALL, "TIFF"), "a TIFF or a camera's raw file"),
        (encode(SMALL, "JPEG2000"), "a JPEG 2000"),
        (encode(SMALL, "ICO"), "an icon"),
        (encode(SMALL, "PDF"), "a PDF"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
        (b"\xff\x0a" + bytes(30), "a JPEG XL"),
        (b"8BPS\0\1" + bytes(30), "a Photoshop file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"PK\3\4" + bytes(30), "an archive"),
        (b"\0\0\0\x18ftypmp42" + bytes(30), "a video or a camera's raw file"),
    ],
)
def test_an_unsupported_format_is_named(data, said):
    """Instead of being called cut short. The error lists the supported formats."""
    with pytest.raises(UnsupportedImageError, match=said) as caught:
        decode(data)
    assert ", ".join(FORMAT_NAMES) in str(caught.value)


def test_an_unsupported_heic_is_explained():
    """The error says how to make a phone send JPEGs."""
    other = encode(SMALL, "HEIF").replace(b"hvc1", b"vvc1").replace(b"hvcC", b"vvcC")
    with pytest.raises(UnsupportedImageError, match="iPhone: Settings, Camera, Formats, Most Compatible"):
        decode(other)
    assert describe_unsupported(encode(SMALL, "HEIF")) is None


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_is_read_whatever_its_major_brand(brand):
    """Some programs write a general brand instead of `heic`."""
    data = encode(make_halves((64, 64)), "HEIF").replace(b"ftypheic", b"ftyp" + brand)
    assert np.abs(decode(data)[:12].astype(int) - [255, 0, 0]).max() < 30
