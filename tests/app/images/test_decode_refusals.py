"""Behaviour of app.images.decode: what it does not decode."""

import contextlib
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from app.errors import BrokenImageError, EmptyUploadError, ImageTooLargeError, UnsupportedImageError
from app.images.decode import FORMATS, MAX_SIDE, QUICK_BYTES, decode_quickly
from app.images.scans import MAX_SCANS, list_scans
from tests.app.pictures import LIMIT, SIZE, decode, encode, make_halves

# In words for the one who sent it: no library's own, no numbers of bytes.
CUT = (
    "^the image('s header)? is damaged or cut short(; send the whole file"
    "|, or of a rare variety; send the whole file, or save it anew as PNG or JPEG)$"
)


@pytest.mark.parametrize("kind", FORMATS)
def test_fewer_bytes_than_an_image_needs_are_broken(kind):
    """An upload that was cut is told so, wherever it was cut."""
    data = encode(Image.effect_noise((200, 200), 90).convert("RGB"), kind)
    for end in (len(data) // 2, 40, 20):
        with pytest.raises(BrokenImageError, match=CUT):
            decode(data[:end])


@pytest.mark.parametrize(
    "data", [b"a text that is called photo.png", b"\0", b"%PDF-1.7 ...", b"<svg></svg>", b"\xff\xd8"]
)
def test_bytes_of_another_kind_are_unsupported(data):
    """The format is told from the bytes, and the answer names those that are read."""
    with pytest.raises(UnsupportedImageError, match="JPEG, PNG, WebP, GIF, BMP, AVIF"):
        decode(data)


def test_formats_outside_the_allow_list_are_unsupported():
    """Pillow reads far more kinds than a service should."""
    for kind in ("TIFF", "ICO", "PPM", "TGA"):
        with pytest.raises(UnsupportedImageError):
            decode(encode(Image.new("RGB", (8, 8)), kind))


def test_no_bytes_are_no_image():
    """Nothing is not the same as something broken."""
    with pytest.raises(EmptyUploadError):
        decode(b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_too_many_pixels_are_refused_by_the_header(kind, monkeypatch):
    """A bomb is never decoded."""
    data = encode(Image.new("RGB", (200, 100)), kind)
    weight = 4 if kind in {"WEBP", "AVIF"} else 1  # their decoders take four times the memory
    decode(data, max_pixels=weight * 20_000)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageTooLargeError, match="200 x 100"):
        decode(data, max_pixels=weight * 20_000 - 1)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_several_scans_may_have_half_the_pixels(mode):
    """All of it is in memory until the last one, however small it is decoded."""
    image = Image.new(mode, (200, 100))
    progressive = encode(image, "JPEG", progressive=True)
    decode(progressive, max_pixels=40_000)
    with pytest.raises(ImageTooLargeError):
        decode(progressive, max_pixels=39_999)


def test_a_jpeg_that_hides_its_scans_may_have_half_the_pixels():
    """A progressive one, or a scan with one of three components, is kept in full whether more comes or not."""
    progressive = encode(Image.new("L", (200, 100)), "JPEG", progressive=True)
    second = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    with pytest.raises(ImageTooLargeError):
        decode(progressive[:second] + b"\xff\xd9", max_pixels=39_999)
    data = encode(Image.new("RGB", (200, 100)), "JPEG")
    at = data.index(b"\xff\xda")
    hidden = data[:at] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[at + 14 :]
    with pytest.raises(ImageTooLargeError):
        decode(hidden, max_pixels=39_999)


def write_scans(count: int) -> bytes:
    """Write a progressive JPEG, its last scan repeated until there are `count`."""
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_that_goes_over_its_picture_too_often_is_refused():
    """Each scan takes time for every pixel, though it has next to no bytes; what encoders write passes."""
    decode(write_scans(MAX_SCANS))
    for decoder in (decode, decode_quickly):
        with pytest.raises(BrokenImageError, match="more than 32 scans"):
            decoder(write_scans(MAX_SCANS + 1), SIZE, max_pixels=LIMIT)


def test_scans_are_told_from_what_looks_like_them():
    """In a profile, in a thumbnail, behind the picture: phones put whole videos there."""
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encode(Image.new("RGB", (64, 64), "red"), "JPEG", icc_profile=b"\xff\xda" * 5000, exif=exif)
    assert decode(data + b"\xff\xda\0\x02" * 50_000)[0, 0, 0] > 250
    assert list_scans(data) == [3]


def test_a_bmp_of_run_lengths_is_refused():
    """Pillow decodes it in Python, pixel by pixel; the bit fields that others use are no compression."""
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 62) + struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 8, 1, 0, 0, 0, 2, 2)
    with pytest.raises(UnsupportedImageError, match="compressed BMP"):
        decode(head + b"\0\0\0\0\xff\xff\xff\0" + b"\x04\x01\0\0" * 4 + b"\0\x01")
    decode(encode(Image.new("RGBA", (4, 4)), "BMP"))


def write_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pad(kind: str, at: int, piece: bytes) -> bytes:
    """Put 2 MB of one piece into a file."""
    data = encode(Image.effect_noise((64, 64), 90), kind)
    return data[:at] + piece * (2 * 2**20 // len(piece)) + data[at:]


@pytest.mark.parametrize(
    "data",
    [
        pad("PNG", 33, write_chunk(b"teXt", b"")),
        pad("PNG", -12, write_chunk(b"teXt", b"")),
        pad("PNG", 33, write_chunk(b"IDAT", b"")),
        pad("JPEG", 2, b"\xff\xe5\0\2"),
        pad("JPEG", 2, b"\xff"),
        pad("JPEG", -2, b"\xff\xe5\0\2"),
        pad("GIF", 13 + 3 * 256, b"\x21\xfe\1x\0"),
        pad("GIF", 13 + 3 * 256, b"x"),
    ],
)
def test_a_file_of_countless_small_parts_is_refused(data):
    """Pillow looks at each of them in Python: seconds in which nothing else runs."""
    started = time.thread_time()
    with pytest.raises(BrokenImageError, match="too many small parts"):
        decode(data)
    assert time.thread_time() - started < 0.5  # 0.3 was met once, on a busy machine


def test_exif_in_countless_segments_is_refused():
    """Pillow copies all that it has of it at each: 4,000 of 4 kB would be 32 GB."""
    with pytest.raises(BrokenImageError, match="more descriptions than"):
        decode(encode(Image.new("L", (8, 8)), "JPEG")[:2] + b"\xff\xe1\0\x09Exif\0\0x" * 65)


def test_a_png_with_countless_profiles_is_refused():
    """Pillow unpacks each as soon as it opens the file: a MB from a kB."""
    data = encode(Image.new("RGB", (8, 8)), "PNG")
    profile = write_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(10_000)))
    decode(data[:33] + profile + data[33:])
    with pytest.raises(BrokenImageError, match="more descriptions than"):
        decode(data[:33] + profile * 65 + data[33:])


def test_a_jpeg_without_an_end_is_gone_over_once():
    """In pieces of 64 kB it would be gone over for each of them: 4 s for 16 MB."""
    data = encode(Image.new("RGB", (64, 64)), "JPEG")
    endless = data[: data.index(b"\xff\xda") + 14] + b"\xff" * 16 * 2**20
    started = time.thread_time()
    with pytest.raises(BrokenImageError):
        decode(endless)
    assert time.thread_time() - started < 1.5


@pytest.mark.parametrize("size", range(2, 9))
def test_scans_are_found_across_the_ends_of_slices(monkeypatch, size):
    """Which are there so that others get a turn while a large file is searched."""
    data = encode(Image.effect_noise((64, 64), 90), "JPEG", progressive=True)
    expected = list_scans(data)
    assert len(expected) > 3
    monkeypatch.setattr("app.images.scans._SLICE_BYTES", size)
    assert list_scans(data) == expected


def test_a_side_that_is_too_long_is_refused():
    """A PNG may have rows of gigabytes, of which a decoder holds two."""
    decode(encode(Image.new("1", (MAX_SIDE, 1)), "PNG"))
    with pytest.raises(ImageTooLargeError, match="65,535"):
        decode(encode(Image.new("1", (MAX_SIDE + 1, 1)), "PNG"))


def test_a_bomb_beyond_pillows_own_limit_is_too_large_as_well():
    """The header alone may promise gigapixels."""
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
@pytest.mark.parametrize("chunks", [(), ((b"tRNS", bytes(9)),), ((b"PLTE", bytes(768)), (b"tRNS", bytes(300)))])
def test_a_palette_that_is_missing_or_too_short_is_broken(side, chunks):
    """Pillow finds out where it converts the pixels, which it has decoded already, or makes up a palette."""
    assert decode(make_png((b"PLTE", bytes(768)), side=side)).shape == (*SIZE, 3)
    with pytest.raises(BrokenImageError):
        decode(make_png(*chunks, side=side))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_what_unpacks_at_once_is_not_decoded_quickly(kind):
    """Pillow unpacks text and profiles when it opens a file: a thread's work, however small the file is."""
    packed = make_png((b"PLTE", bytes(768)), (kind, b"x\0\0" + zlib.compress(bytes(1_000_000))))
    assert len(packed) < QUICK_BYTES
    assert decode_quickly(packed, SIZE, max_pixels=LIMIT) is None


def test_damaged_bytes_never_raise_anything_else():
    """Whatever a byte is changed to, the answer is an image or an image's error."""
    random = np.random.default_rng(2)
    for kind in FORMATS:
        data = np.frombuffer(encode(make_halves((20, 20)), kind), dtype=np.uint8)
        for _ in range(40):
            damaged = data.copy()
            damaged[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
            with contextlib.suppress(BrokenImageError, UnsupportedImageError, ImageTooLargeError):
                decode(damaged.tobytes())
