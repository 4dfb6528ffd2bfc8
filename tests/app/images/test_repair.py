"""Behaviour of app.images.repair: harmless damage is ignored, missing pixels are an error."""

import struct

import numpy as np
import pytest
from PIL import Image

from app.errors import BrokenImageError
from tests.app.pictures import decode, encode, make_halves, write_chunk, write_png

NOISE = Image.effect_noise((300, 200), 60).convert("RGB")
JPEGS = {
    "plain": {},
    "no subsampling": {"subsampling": 0},
    "restart markers": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}
PNG = encode(NOISE, "PNG")


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_read(mode, options):
    """The marker holds no pixels, and neither does anything behind it, such as a phone's video."""
    data = encode(NOISE.convert(mode), "JPEG", **options)
    for other in (data[:-2], data[:-1], data + b"video" * 1000, data + bytes(1000)):
        np.testing.assert_array_equal(decode(other), decode(data))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("options", list(JPEGS.values())[:3], ids=list(JPEGS)[:3])
def test_a_jpeg_that_lacks_rows_is_broken(options, part):
    """Even if an end marker or zeros follow the cut, for which libjpeg invents pixels."""
    data = encode(NOISE, "JPEG", **options)
    cut = data[: int(len(data) * part)]
    for end in (b"", b"\xff\xd9", bytes(len(data) - len(cut)), bytes(1000) + b"\xff\xd9"):
        with pytest.raises(BrokenImageError):
            decode(cut + end)


@pytest.mark.parametrize("end", [b"", b"\xff\xd9", bytes(1000)])
def test_a_jpeg_that_lacks_scans_is_broken(end):
    """A progressive JPEG would be blurred."""
    data = encode(NOISE, "JPEG", progressive=True)
    with pytest.raises(BrokenImageError):
        decode(data[: len(data) // 2] + end)


def damage(png: bytes, kind: bytes) -> bytes:
    """Change the checksum of a chunk."""
    at = png.index(kind) - 4
    end = at + 12 + int.from_bytes(png[at : at + 4], "big")
    return png[: end - 4] + bytes(byte ^ 0xFF for byte in png[end - 4 : end]) + png[end:]


@pytest.mark.parametrize(
    "chunk",
    [
        damage(write_chunk(b"iCCP", b"x\0\0x"), b"iCCP"),
        damage(write_chunk(b"tEXt", b"a\0b"), b"tEXt"),
        damage(write_chunk(b"eXIf", b"MM"), b"eXIf"),
        damage(write_chunk(b"tRNS", bytes(6)), b"tRNS"),
        write_chunk(b"pHYs", b"\0"),
        write_chunk(b"iCCP", b""),
        write_chunk(b"zTXt", b"x\0\0no deflate"),
        write_chunk(b"gAMA", b"\0"),
        write_chunk(b"eXIf", b"no EXIF"),
        write_chunk(b"blub", b"x" * 1000),
        write_chunk(b"tRNS", b"\0"),
        write_chunk(b"acTL", b"\0"),
        write_chunk(b"acTL", struct.pack(">2I", 1, 0)),
        write_chunk(b"acTL", struct.pack(">2I", 1, 0)) + write_chunk(b"fcTL", b"\0"),
        write_chunk(b"fdAT", b""),
    ],
)
def test_a_png_with_damaged_metadata_is_read(chunk):
    """Like browsers, the service ignores damaged chunks that do not affect pixels."""
    np.testing.assert_array_equal(decode(PNG[:33] + chunk + PNG[33:]), decode(PNG))


@pytest.mark.parametrize("change", [damage, lambda png, _: png])
def test_the_first_frame_of_an_animated_png_needs_no_control_chunk(change):
    """If the chunk that describes it is damaged, the first frame is still the one that is read."""
    frames = [make_halves((32, 32)), Image.new("RGB", (32, 32), "lime")]
    animated = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(change(animated, b"fcTL")), np.array(frames[0]))


@pytest.mark.parametrize(("colour_type", "size"), [(0, 3), (2, 2), (3, 0), (3, 300), (4, 2), (6, 6)])
def test_a_transparency_of_the_wrong_length_is_ignored(colour_type, size):
    """As by browsers."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    palette = write_chunk(b"PLTE", bytes(3 * 256)) if colour_type == 3 else b""
    rows = [b"\xff" * 32 * channels] * 32
    plain = write_png(8, colour_type, rows, palette)
    changed = write_png(
        8, colour_type, rows, palette + write_chunk(b"tRNS", b"\0\xff" * (size // 2) + b"\0" * (size % 2))
    )
    np.testing.assert_array_equal(decode(changed), decode(plain))


def test_a_png_with_damaged_pixels_is_broken():
    """Damage to its header or its pixel data can't be ignored."""
    at = PNG.index(b"IDAT") + len(PNG) // 2
    for damaged in (damage(PNG, b"IHDR"), PNG[:at] + bytes(64) + PNG[at + 64 :]):
        with pytest.raises(BrokenImageError):
            decode(damaged)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "AVIF", "HEIF"])
def test_a_file_with_zeros_in_place_of_pixels_is_broken(kind):
    """An interrupted transfer leaves such a file."""
    data = encode(NOISE, kind)
    with pytest.raises(BrokenImageError):
        decode(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def test_zeros_after_a_complete_file_are_ignored():
    """Some programs fill the last block."""
    for kind in ("PNG", "GIF", "WEBP", "AVIF", "BMP", "HEIF"):
        data = encode(make_halves((300, 200)), kind)
        np.testing.assert_array_equal(decode(data + bytes(512)), decode(data))


def test_segments_that_hold_markers_are_skipped():
    """Thumbnails and profiles may contain JPEGs, or bytes that look like markers."""
    data = encode(NOISE, "JPEG")
    inner = b"\xff\xd8\xff\xda\0\x08\xff\xd9" * 1000
    segment = b"\xff\xe2" + struct.pack(">H", len(inner) + 2) + inner
    np.testing.assert_array_equal(decode(data[:2] + segment + data[2:]), decode(data))
