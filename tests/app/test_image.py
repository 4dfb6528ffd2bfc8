"""Behaviour of app.image."""

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.errors import BrokenImageError, EmptyUploadError, ImageTooLargeError, UnsupportedImageError
from app.image import FORMATS, MAX_SIDE, QUICK_BYTES, decode_image, decode_quickly
from app.scans import MAX_SCANS, list_scans

SIZE = (32, 32)
LIMIT = 50_000_000


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, size: tuple[int, int] = SIZE, max_pixels: int = LIMIT) -> np.ndarray:
    pixels = decode_image(data, size, max_pixels=max_pixels)
    assert pixels.shape == (*size, 3)
    assert pixels.dtype == np.uint8
    return pixels


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def make_halves(size: tuple[int, int]) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", size, "blue")
    ImageDraw.Draw(image).rectangle((0, 0, size[0], size[1] // 2 - 1), "red")
    return image


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("PNG", {"interlace": 1})]
)
def test_an_image_of_the_models_size_passes_bit_by_bit(noise, kind, options):
    """What training saw is what serving sees."""
    np.testing.assert_array_equal(decode(encode(Image.fromarray(noise), kind, **options)), noise)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(32, 32), (640, 480), (7, 90)])
def test_every_format_shows_what_was_drawn(kind, size):
    """All of the allow-list decodes, at the model's size, larger and smaller, the right way up."""
    pixels = decode(encode(make_halves(size), kind)).astype(int)
    assert np.abs(pixels[:12] - [255, 0, 0]).max() < 30
    assert np.abs(pixels[20:] - [0, 0, 255]).max() < 30


def test_a_height_that_is_not_the_width_is_kept_apart():
    """Sizes are height before width, as arrays have it."""
    pixels = decode(encode(make_halves((100, 50)), "PNG"), size=(8, 6))
    assert pixels[0, :, 0].min() > 250
    assert pixels[7, :, 2].min() > 250


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(mode):
    """A picture without colour is one with three equal channels."""
    pixels = decode(encode(Image.new("L", SIZE, 255).convert(mode), "PNG"))
    np.testing.assert_array_equal(pixels, np.full((*SIZE, 3), 255))


def test_sixteen_bit_grey_is_scaled_not_clipped():
    """0 to 65535 becomes 0 to 255; clipping would turn nearly all of it white."""
    ramp = np.arange(32 * 32, dtype=np.uint16).reshape(SIZE) * 64
    pixels = decode(encode(Image.fromarray(ramp), "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat((ramp >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colour_and_alpha_are_scaled(colour_type, channels):
    """The kinds of 16-bit PNG that Pillow can't write."""
    values = np.full((*SIZE, channels), 0x8040, dtype=">u2")
    if channels in (2, 4):
        values[..., -1] = 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = struct.pack(">2I5B", *SIZE, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    np.testing.assert_array_equal(decode(png), np.full((*SIZE, 3), 0x80))


def test_a_palette_gives_its_colours():
    """Indexed colours are looked up, also where one of them is transparent."""
    image = make_halves(SIZE).quantize(4)
    assert tuple(decode(encode(image, "PNG"))[0, 0]) == (255, 0, 0)
    transparent = decode(encode(image, "PNG", transparency=image.getpixel((0, 0))))
    assert tuple(transparent[0, 0]) == (255, 255, 255)
    assert tuple(transparent[31, 0]) == (0, 0, 255)


def test_cmyk_gives_its_colours():
    """Print colours are converted."""
    image = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    assert np.abs(decode(encode(image, "JPEG", quality=95)).astype(int) - [255, 0, 0]).max() < 10


@pytest.mark.parametrize("size", [SIZE, (64, 64)])
@pytest.mark.parametrize(("mode", "clear"), [("RGBA", (9, 9, 9, 0)), ("LA", (9, 0))])
def test_transparency_shows_white(mode, clear, size):
    """What lies under transparent pixels is not there."""
    assert decode(encode(Image.new(mode, size, clear), "PNG")).min() == 255


def test_half_transparency_is_half_white():
    """Alpha mixes with white, and colours under clear pixels do not bleed into a resize."""
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((0, 0, 0, 128), (0, 0, 64, 32))
    pixels = decode(encode(image, "PNG")).astype(int)
    assert np.abs(pixels[:12] - 127).max() <= 2
    assert pixels[20:].min() >= 253


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_orientation_is_applied(kind):
    """A photograph taken with the phone upside down is shown upright."""
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = decode(encode(make_halves((64, 64)), kind, exif=exif)).astype(int)
    assert np.abs(pixels[4] - [0, 0, 255]).max() < 30
    exif[0x0112] = 6  # taken a quarter turn to the left: what was above comes to the right
    pixels = decode(encode(make_halves((64, 48)), kind, exif=exif)).astype(int)
    assert np.abs(pixels[:, 28] - [255, 0, 0]).max() < 30


def test_a_damaged_exif_block_is_ignored():
    """Every viewer shows such a picture, so it is classified too."""
    exif = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage"
    assert decode(encode(Image.new("RGB", (64, 64), "red"), "JPEG", exif=exif))[0, 0, 0] > 250


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_gives_its_first_frame(kind):
    """Later frames are never decoded."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    pixels = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 10


def test_a_phones_multi_picture_file_is_a_jpeg():
    """Phones put a preview behind the photograph."""
    pixels = decode(
        encode(Image.new("RGB", (40, 40), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    )
    assert pixels[0, 0, 0] > 250


def test_one_pixel_fills_the_model():
    """The smallest image is an image."""
    assert (decode(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")) == [1, 2, 3]).all()


def test_a_large_photograph_is_decoded_at_a_fraction_of_its_size(monkeypatch):
    """12 megapixels of JPEG cost an eighth in each direction, and show what the whole would."""
    photo = encode(make_halves((4000, 3000)).effect_spread(20), "JPEG")
    loaded = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda image, mode: (loaded.append(image.size), convert(image, mode))[1]
    )
    pixels = decode(photo).astype(int)
    assert loaded == [(500, 375)]
    assert np.abs(pixels[:14] - [255, 0, 0]).max() < 30


def test_detail_finer_than_the_models_pixels_is_averaged():
    """A board of one-pixel squares is grey; picking pixels, or averaging whole ones only, would show a pattern."""
    board = np.indices((96, 96)).sum(axis=0, dtype=np.uint8) % 2 * 255
    inner = decode(encode(Image.fromarray(board), "PNG")).astype(int)[
        1:-1, 1:-1
    ]  # at the edge there is less to average
    assert np.abs(inner - 127).max() <= 3


def test_a_resize_is_lanczos():
    """The figures for pictures of other sizes were measured with it."""
    noise = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    expected = Image.fromarray(noise).resize(SIZE, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(noise), "PNG")), np.asarray(expected))


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
    with pytest.raises(BrokenImageError, match="more EXIF"):
        decode(encode(Image.new("L", (8, 8)), "JPEG")[:2] + b"\xff\xe1\0\x09Exif\0\0x" * 65)


def test_a_side_that_is_too_long_is_refused():
    """A PNG may have rows of gigabytes, of which a decoder holds two."""
    decode(encode(Image.new("1", (MAX_SIDE, 1)), "PNG"))
    with pytest.raises(ImageTooLargeError, match="65,535"):
        decode(encode(Image.new("1", (MAX_SIDE + 1, 1)), "PNG"))


@pytest.mark.parametrize("size", [(1000, 700), (999, 701), (97, 2000), (5000, 20)])
def test_a_large_image_is_averaged_in_strips_as_in_one(monkeypatch, size):
    """The same pixels as Pillow's own way, which holds the whole image twice."""
    monkeypatch.setattr("app.image._STRIP_PIXELS", 10_000)
    image = Image.effect_noise(size, 90).convert("RGB")
    expected = image.resize(SIZE, Image.Resampling.LANCZOS, reducing_gap=3.0)
    np.testing.assert_array_equal(decode(encode(image, "PNG")), np.asarray(expected))


def test_a_large_image_is_never_copied_whole(monkeypatch):
    """Whatever its mode has to become: the copies are what memory would have to be kept for."""
    whole = (1000, 900)
    for name in ("convert", "transpose", "copy"):
        method = getattr(Image.Image, name)

        def watch(image, *args, _method=method, **options):
            assert image.size != whole
            return _method(image, *args, **options)

        monkeypatch.setattr(Image.Image, name, watch)
    monkeypatch.setattr("app.image._STRIP_PIXELS", 100_000)
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "RGBA", "LA", "L", "I;16"):
        decode(encode(Image.new(mode, whole), "PNG", exif=exif))
    decode(encode(Image.new("P", whole), "PNG", exif=exif, transparency=0))


def test_a_bomb_beyond_pillows_own_limit_is_too_large_as_well():
    """The header alone may promise gigapixels."""
    bomb = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    bomb[16:24] = (40_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(ImageTooLargeError):
        decode(bytes(bomb))


def test_what_is_decoded_quickly_is_decoded_alike():
    """A small file of a small picture gives what `decode_image` gives; a bomb, and any other kind, is left to that."""
    small = encode(make_halves((64, 48)), "PNG")
    np.testing.assert_array_equal(decode_quickly(small, SIZE, max_pixels=LIMIT), decode(small))
    bomb = encode(Image.new("L", (1000, 1000)), "PNG")
    assert len(bomb) < QUICK_BYTES
    for other in (b"", bomb, encode(make_halves((40, 30)), "WEBP"), bytes(QUICK_BYTES + 1)):
        assert decode_quickly(other, SIZE, max_pixels=LIMIT) is None
    with pytest.raises(BrokenImageError):
        decode_quickly(small[:-30], SIZE, max_pixels=LIMIT)


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
