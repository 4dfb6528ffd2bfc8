"""Behaviour of app.images.decode: what a picture looks like to the model."""

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
    png = write_png(16, colour_type, [row.tobytes() for row in values])
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


@pytest.mark.parametrize("size", [SIZE, (200, 100)])
def test_a_clear_grey_of_sixteen_bits_shows_white(size):
    """A PNG names it by its whole value: the upper half alone may be that of others."""
    values = np.full(size[::-1], 0x1234, np.uint16)
    values[: size[1] // 2] = 0x12FF
    data = encode(Image.fromarray(values), "PNG")
    pixels = decode(data[:33] + write_chunk(b"tRNS", b"\x12\x34") + data[33:])
    assert abs(pixels[:14].astype(int) - 0x12).max() < 4  # Lanczos rings at an edge
    assert pixels[18:].min() > 250


def test_half_transparency_is_half_white():
    """Alpha mixes with white, and colours under clear pixels do not bleed into a resize."""
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((0, 0, 0, 128), (0, 0, 64, 32))
    pixels = decode(encode(image, "PNG")).astype(int)
    assert np.abs(pixels[:12] - 127).max() <= 2
    assert pixels[20:].min() >= 253


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_exif_orientation_is_applied(kind):
    """A photograph taken with the phone upside down is shown upright."""
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels = decode(encode(make_halves((64, 64)), kind, exif=exif.tobytes())).astype(int)
    assert np.abs(pixels[4] - [0, 0, 255]).max() < 30
    exif[0x0112] = 6  # taken a quarter turn to the left: what was above comes to the right
    pixels = decode(encode(make_halves((64, 48)), kind, exif=exif.tobytes())).astype(int)
    assert np.abs(pixels[:, 28] - [255, 0, 0]).max() < 30


def test_a_damaged_exif_block_is_ignored():
    """Every viewer shows such a picture, so it is classified too."""
    exif = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff garbage"
    assert decode(encode(Image.new("RGB", (64, 64), "red"), "JPEG", exif=exif))[0, 0, 0] > 250


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "HEIF"])
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


@pytest.mark.parametrize("size", [(1000, 700), (999, 701), (97, 2000), (5000, 20)])
def test_a_large_image_is_averaged_in_strips_as_in_one(monkeypatch, size):
    """The same pixels as Pillow's own way, which holds the whole image twice."""
    monkeypatch.setattr("app.images.decode._STRIP_PIXELS", 10_000)
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
    monkeypatch.setattr("app.images.decode._STRIP_PIXELS", 100_000)
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "RGBA", "LA", "L", "I;16"):
        decode(encode(Image.new(mode, whole), "PNG", exif=exif))
    decode(encode(Image.new("P", whole), "PNG", exif=exif, transparency=0))


@pytest.mark.parametrize(("bits", "value"), [(1, 0), (1, 1), (2, 1), (2, 3), (4, 5), (4, 15), (8, 77)])
def test_a_clear_grey_of_any_depth_shows_white(bits, value):
    """A PNG names it as the file has it, not as it is shown; another grey stays."""
    row = bytes([sum(value << shift for shift in range(0, 8, bits))]) * (32 * bits // 8)
    clear = write_png(bits, 0, [row] * 32, write_chunk(b"tRNS", struct.pack(">H", value)))
    assert decode(clear).min() == 255
    other = write_png(bits, 0, [row] * 32, write_chunk(b"tRNS", struct.pack(">H", value ^ 1)))
    np.testing.assert_array_equal(decode(other), decode(write_png(bits, 0, [row] * 32)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_clear_colour_of_a_palette_shows_white(bits):
    """However few colours there are."""
    chunks = write_chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + write_chunk(b"tRNS", b"\0")
    assert decode(write_png(bits, 3, [bytes(32 * bits // 8)] * 32, chunks)).min() == 255


def test_a_clear_colour_of_sixteen_bits_shows_white():
    """Pillow compares the upper halves of the pixels with the whole of it."""
    row = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC) * 32
    clear = write_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    assert decode(write_png(16, 2, [row] * 32, clear)).min() == 255
    other = write_chunk(b"tRNS", struct.pack(">3H", 0x9ABC, 0x5678, 0x1234))
    assert tuple(decode(write_png(16, 2, [row] * 32, other))[0, 0]) == (0x12, 0x56, 0x9A)


def test_gamma_and_profiles_change_nothing():
    """As in training, whose files had none."""
    data = encode(make_halves(SIZE), "PNG")
    gamma = write_chunk(b"gAMA", struct.pack(">I", 100_000)) + write_chunk(b"sRGB", b"\1")
    np.testing.assert_array_equal(decode(data[:33] + gamma + data[33:]), decode(data))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_in_xmp_is_ignored(kind):
    """No viewer obeys it."""
    image = make_halves((64, 48))
    options = {"pnginfo": PngInfo()} if kind == "PNG" else {"xmp": XMP}
    if kind == "PNG":
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    np.testing.assert_array_equal(decode(encode(image, kind, **options)), decode(encode(image, kind)))


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_whose_alpha_is_the_same_all_over_is_opaque(alpha):
    """Programs leave the fourth byte of each pixel 0; one that is transparent in places stays so."""
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
    """Write a GIF of 64 x 64 whose one frame, red, covers the right half."""
    image = Image.new("P", (32, 64), 1)
    image.putpalette([0, 255, 0, 255, 0, 0] + [0] * 762)
    data = bytearray(encode(image, "GIF", optimize=False, **options))
    frame = data.index(b"\x2c" + struct.pack("<4H", 0, 0, 32, 64))
    data[6:10] = struct.pack("<2H", 64, 64)
    data[frame + 1 : frame + 3] = struct.pack("<H", 32)
    return bytes(data)


@pytest.mark.parametrize("options", [{}, {"background": 0}, {"transparency": 7}])
def test_what_the_first_frame_of_a_gif_leaves_shows_white(options):
    """Browsers leave it transparent, whatever background the file names."""
    pixels = decode(write_part_of_a_gif(**options)).astype(int)
    assert pixels[:, :14].min() > 245
    assert np.abs(pixels[:, 18:] - [255, 0, 0]).max() < 10


def test_what_the_first_frame_of_a_webp_leaves_shows_white():
    """The same."""
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    data[24:27] = (127).to_bytes(3, "little")  # the canvas is twice as wide
    pixels = decode(bytes(data)).astype(int)
    assert np.abs(pixels[:, :14] - [255, 0, 0]).max() < 10
    assert pixels[:, 18:].min() > 245


def test_a_png_shows_its_animation_not_its_substitute():
    """Which is for programs that know no animations."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime")]
    data = encode(Image.new("RGB", (40, 40), "blue"), "PNG", save_all=True, append_images=frames, default_image=True)
    assert tuple(decode(data)[0, 0]) == (255, 0, 0)


def test_print_colours_are_taken_as_adobe_writes_them():
    """Inverted, whether the file says that Adobe wrote it or not: as browsers do."""
    data = encode(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95)
    adobe = data.index(b"\xff\xee")
    for jpeg in (data, data[:adobe] + data[adobe + 16 :]):
        assert np.abs(decode(jpeg).astype(int) - [255, 0, 0]).max() < 10
