"""Behaviour of app.images.decode: the pixels that an image becomes."""

import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.images.decode import FORMATS
from tests.app.pictures import SIZE, decode, encode, make_halves, write_chunk, write_png


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("PNG", {"interlace": 1})]
)
def test_an_image_of_the_models_size_is_unchanged(noise, kind, options):
    """Serving sees the same pixels as training."""
    np.testing.assert_array_equal(decode(encode(Image.fromarray(noise), kind, **options)), noise)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(32, 32), (640, 480), (7, 90)])
def test_every_format_is_decoded(kind, size):
    """To the model's size, from larger and smaller images, the right way up."""
    pixels = decode(encode(make_halves(size), kind)).astype(int)
    assert np.abs(pixels[:12] - [255, 0, 0]).max() < 30
    assert np.abs(pixels[20:] - [0, 0, 255]).max() < 30


def test_height_comes_before_width():
    """In sizes and in arrays."""
    pixels = decode(encode(make_halves((100, 50)), "PNG"), size=(8, 6))
    assert pixels[0, :, 0].min() > 250
    assert pixels[7, :, 2].min() > 250


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_three_equal_channels(mode):
    """A grey image gets three equal channels."""
    pixels = decode(encode(Image.new("L", SIZE, 255).convert(mode), "PNG"))
    np.testing.assert_array_equal(pixels, np.full((*SIZE, 3), 255))


def test_sixteen_bit_grey_is_scaled_not_clipped():
    """0 to 65535 becomes 0 to 255; clipping would make almost all of it white."""
    ramp = np.arange(32 * 32, dtype=np.uint16).reshape(SIZE) * 64
    pixels = decode(encode(Image.fromarray(ramp), "PNG"))
    np.testing.assert_array_equal(pixels, np.repeat((ramp >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colour_and_alpha_are_scaled(colour_type, channels):
    """In 16-bit PNGs of the kinds that Pillow can't write."""
    values = np.full((*SIZE, channels), 0x8040, dtype=">u2")
    if channels in (2, 4):
        values[..., -1] = 0xFFFF
    png = write_png(16, colour_type, [row.tobytes() for row in values])
    np.testing.assert_array_equal(decode(png), np.full((*SIZE, 3), 0x80))


def test_a_palette_gives_its_colours():
    """With and without a transparent colour."""
    image = make_halves(SIZE).quantize(4)
    assert tuple(decode(encode(image, "PNG"))[0, 0]) == (255, 0, 0)
    transparent = decode(encode(image, "PNG", transparency=image.getpixel((0, 0))))
    assert tuple(transparent[0, 0]) == (255, 255, 255)
    assert tuple(transparent[31, 0]) == (0, 0, 255)


def test_cmyk_is_converted():
    """To RGB."""
    image = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    assert np.abs(decode(encode(image, "JPEG", quality=95)).astype(int) - [255, 0, 0]).max() < 10


@pytest.mark.parametrize("size", [SIZE, (64, 64)])
@pytest.mark.parametrize(("mode", "clear"), [("RGBA", (9, 9, 9, 0)), ("LA", (9, 0))])
def test_transparent_pixels_are_white(mode, clear, size):
    """Whatever colour they hide."""
    assert decode(encode(Image.new(mode, size, clear), "PNG")).min() == 255


@pytest.mark.parametrize("size", [SIZE, (200, 100)])
def test_a_transparent_grey_of_sixteen_bits_is_white(size):
    """Only the exact value is transparent, not all values with the same upper 8 bits."""
    values = np.full(size[::-1], 0x1234, np.uint16)
    values[: size[1] // 2] = 0x12FF
    data = encode(Image.fromarray(values), "PNG")
    pixels = decode(data[:33] + write_chunk(b"tRNS", b"\x12\x34") + data[33:])
    assert abs(pixels[:14].astype(int) - 0x12).max() < 4  # Lanczos rings at edges
    assert pixels[18:].min() > 250


def test_half_transparent_pixels_are_blended_with_white():
    """Colours under transparent pixels do not leak into a resize."""
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((0, 0, 0, 128), (0, 0, 64, 32))
    pixels = decode(encode(image, "PNG")).astype(int)
    assert np.abs(pixels[:12] - 127).max() <= 2
    assert pixels[20:].min() >= 253


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_exif_orientation_is_applied(kind):
    """An image taken with the phone upside down is upright."""
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = decode(encode(make_halves((64, 64)), kind, exif=exif.tobytes())).astype(int)
    assert np.abs(pixels[4] - [0, 0, 255]).max() < 30
    exif[0x0112] = 6  # stored a quarter turn to the left: the top is now on the right
    pixels = decode(encode(make_halves((64, 48)), kind, exif=exif.tobytes())).astype(int)
    assert np.abs(pixels[:, 28] - [255, 0, 0]).max() < 30


def test_damaged_exif_is_ignored():
    """As by viewers."""
    exif = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage"
    assert decode(encode(Image.new("RGB", (64, 64), "red"), "JPEG", exif=exif))[0, 0, 0] > 250


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "HEIF"])
def test_an_animation_gives_its_first_frame(kind):
    """Later frames are not decoded."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    pixels = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 10


def test_a_phones_multi_picture_file_is_read_as_a_jpeg():
    """Phones append a preview to the photograph."""
    pixels = decode(
        encode(Image.new("RGB", (40, 40), "red"), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    )
    assert pixels[0, 0, 0] > 250


def test_an_image_of_one_pixel_is_decoded():
    """It is the smallest image."""
    assert (decode(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")) == [1, 2, 3]).all()


def test_a_large_photograph_is_decoded_at_a_fraction_of_its_size(monkeypatch):
    """A JPEG of 12 megapixels is decoded at an eighth of its width and height, with nearly the same result."""
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
    """A checkerboard of single pixels becomes grey, without a pattern."""
    board = np.indices((96, 96)).sum(axis=0, dtype=np.uint8) % 2 * 255
    inner = decode(encode(Image.fromarray(board), "PNG")).astype(int)[
        1:-1, 1:-1
    ]  # there is less to average at the edge
    assert np.abs(inner - 127).max() <= 3


def test_a_resize_is_lanczos():
    """The published accuracy was measured with it."""
    noise = np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    expected = Image.fromarray(noise).resize(SIZE, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(noise), "PNG")), np.asarray(expected))


@pytest.mark.parametrize("size", [(1000, 700), (999, 701), (97, 2000), (5000, 20)])
def test_averaging_in_strips_gives_the_same_pixels(monkeypatch, size):
    """As Pillow's own reduction, which would hold the whole image twice."""
    monkeypatch.setattr("app.images.decode._STRIP_PIXELS", 10_000)
    image = Image.effect_noise(size, 90).convert("RGB")
    expected = image.resize(SIZE, Image.Resampling.LANCZOS, reducing_gap=3.0)
    np.testing.assert_array_equal(decode(encode(image, "PNG")), np.asarray(expected))


def test_a_large_image_is_never_copied_completely(monkeypatch):
    """Whatever its mode; the memory limit leaves no room for a copy."""
    whole = (1000, 900)
    for name in ("convert", "transpose", "copy"):
        method = getattr(Image.Image, name)

        def watch(image, *args, _method=method, **options):
            assert image.size != whole
            return _method(image, *args, **options)

        monkeypatch.setattr(Image.Image, name, watch)
    monkeypatch.setattr("app.images.decode._STRIP_PIXELS", 100_000)
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "RGBA", "LA", "L", "I;16"):
        decode(encode(Image.new(mode, whole), "PNG", exif=exif))
    decode(encode(Image.new("P", whole), "PNG", exif=exif, transparency=0))


@pytest.mark.parametrize(("bits", "value"), [(1, 0), (1, 1), (2, 1), (2, 3), (4, 5), (4, 15), (8, 77)])
def test_a_transparent_grey_of_any_bit_depth_is_white(bits, value):
    """The PNG gives it in the file's bit depth. Other greys stay."""
    row = bytes([sum(value << shift for shift in range(0, 8, bits))]) * (32 * bits // 8)
    clear = write_png(bits, 0, [row] * 32, write_chunk(b"tRNS", struct.pack(">H", value)))
    assert decode(clear).min() == 255
    other = write_png(bits, 0, [row] * 32, write_chunk(b"tRNS", struct.pack(">H", value ^ 1)))
    np.testing.assert_array_equal(decode(other), decode(write_png(bits, 0, [row] * 32)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_colour_of_a_palette_is_white(bits):
    """Whatever the number of colours."""
    chunks = write_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + write_chunk(b"tRNS", b"\0")
    assert decode(write_png(bits, 3, [bytes(32 * bits // 8)] * 32, chunks)).min() == 255


def test_a_transparent_colour_of_sixteen_bits_is_white():
    """Pillow would compare it with the upper 8 bits of the pixels."""
    row = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC) * 32
    clear = write_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    assert decode(write_png(16, 2, [row] * 32, clear)).min() == 255
    other = write_chunk(b"tRNS", struct.pack(">3H", 0x9ABC, 0x5678, 0x1234))
    assert tuple(decode(write_png(16, 2, [row] * 32, other))[0, 0]) == (0x12, 0x56, 0x9A)


def test_gamma_and_colour_profiles_are_ignored():
    """As in training, whose files had none."""
    data = encode(make_halves(SIZE), "PNG")
    gamma = write_chunk(b"gAMA", struct.pack(">I", 100_000)) + write_chunk(b"sRGB", b"\1")
    np.testing.assert_array_equal(decode(data[:33] + gamma + data[33:]), decode(data))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_in_xmp_is_ignored(kind):
    """As by viewers."""
    image = make_halves((64, 48))
    options = {"pnginfo": PngInfo()} if kind == "PNG" else {"xmp": XMP}
    if kind == "PNG":
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    np.testing.assert_array_equal(decode(encode(image, kind, **options)), decode(encode(image, kind)))


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_with_constant_alpha_is_opaque(alpha):
    """Many programs set the fourth byte of each pixel to 0. Varying alpha is transparency."""
    image = make_halves((64, 48))
    image.putalpha(alpha)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"sRGB" + bytes(36 + 12 + 16)
    head = struct.pack("<IiiHHIIiiII", 124, 64, -48, 1, 32, 3, 64 * 48 * 4, 0, 0, 0, 0) + masks
    pixels = image.tobytes("raw", "BGRA")

    def write(pixels: bytes) -> bytes:
        return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels

    np.testing.assert_array_equal(decode(write(pixels)), decode(encode(make_halves((64, 48)), "BMP")))
    mixed = pixels[: 64 * 24 * 4] + bytes(64 * 24 * 4)
    assert alpha == 0 or decode(write(mixed))[20:].min() == 255


def write_part_of_a_gif(**options: object) -> bytes:
    """Write a GIF of 64 x 64 pixels whose only frame, red, covers the right half."""
    image = Image.new("P", (32, 64), 1)
    image.putpalette([0, 255, 0, 255, 0, 0] + [0] * 762)
    data = bytearray(encode(image, "GIF", optimize=False, **options))
    frame = data.index(b"\x2c" + struct.pack("<4H", 0, 0, 32, 64))
    data[6:10] = struct.pack("<2H", 64, 64)
    data[frame + 1 : frame + 3] = struct.pack("<H", 32)
    return bytes(data)


@pytest.mark.parametrize("options", [{}, {"background": 0}, {"transparency": 7}])
def test_the_part_that_a_gif_frame_does_not_cover_is_white(options):
    """Browsers leave it transparent and ignore the file's background colour."""
    pixels = decode(write_part_of_a_gif(**options)).astype(int)
    assert pixels[:, :14].min() > 245
    assert np.abs(pixels[:, 18:] - [255, 0, 0]).max() < 10


def test_the_part_that_a_webp_frame_does_not_cover_is_white():
    """Like that of a GIF."""
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    data[24:27] = (127).to_bytes(3, "little")  # the canvas is twice as wide
    pixels = decode(bytes(data)).astype(int)
    assert np.abs(pixels[:, :14] - [255, 0, 0]).max() < 10
    assert pixels[:, 18:].min() > 245


def test_an_animated_png_gives_its_first_frame():
    """Not the default image, which is for programs that can't show animations."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime")]
    data = encode(Image.new("RGB", (40, 40), "blue"), "PNG", save_all=True, append_images=frames, default_image=True)
    assert tuple(decode(data)[0, 0]) == (255, 0, 0)


def test_cmyk_jpegs_are_inverted():
    """As Adobe writes them, with or without Adobe's marker, and as browsers read them."""
    data = encode(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95)
    adobe = data.index(b"\xff\xee")
    for jpeg in (data, data[:adobe] + data[adobe + 16 :]):
        assert np.abs(decode(jpeg).astype(int) - [255, 0, 0]).max() < 10
