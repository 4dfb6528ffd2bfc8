"""From a file's bytes to pixels. The only module that knows Pillow; it knows no model, no settings and no process.

Strangers' files belong in a decoder process, see `app.images.decoders`: nothing here guesses what a file costs.
The format is told from the bytes, never from the client's word. Colour profiles are ignored, as they were in training.
"""

import copy  # noqa: F401 - Pillow imports it when it meets the first GIF
import io
import logging
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import (  # the plugins, which Pillow would import when it meets the first file that needs them
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    ImageChops,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401 - which reads EXIF
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from app.errors import BrokenImageError, EmptyUploadError, ImageError, ImageTooLargeError, UnsupportedImageError
from app.images.formats import FORMAT_NAMES, is_simple

if TYPE_CHECKING:  # a decoder process starts in half the time, and with half the memory, without NumPy
    import numpy as np
    from numpy.typing import NDArray

FORMATS = tuple(name.upper() for name in FORMAT_NAMES)  # as Pillow has them

# Pillow's own limit is one for the process and partly a warning; `decode_image` holds a stricter one per call.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are decoded beside each other already
Image.preinit()
# Pillow's warnings about a client's file are nothing that an operator could act on.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")

# How much larger than the result a JPEG is decoded, at least; one that is smaller itself, whole. So one of 512 x 384
# is decoded at 64 x 48, one of 640 x 480 at 80 x 60. Of 2,500 test images enlarged to these sizes 99.2 and 99.3 % get
# the label that they get when decoded whole; at the next size, which a gap of 2 would take, 99.5 %, in half as much
# time again.
_DRAFT_GAP = 1.5
# Pixels that are converted at once, of an image that is then reduced.
_STRIP_PIXELS = 2**20

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # from EXIF's orientation
_SIDEWAYS = {5, 6, 7, 8}

logger = logging.getLogger(__name__)


def decode_image(
    data: bytes, size: tuple[int, int], *, max_pixels: int, before_pixels: Callable[[int], None] = lambda _: None
) -> bytes:
    """Decode one image file and fit it to the model.

    Orientation from EXIF is applied, transparency shows white, an animation gives its first frame. An RGB image that
    already has the right size passes bit by bit; any other is resized with antialiasing, its aspect ratio ignored.

    Args:
        data: the file.
        size: height and width of the result, in pixels.
        max_pixels: the most that are decoded, by what the file's header says.
        before_pixels: is told how many there are before they are decoded.

    Returns:
        The pixels, RGB, a byte for each channel, row by row: (height, width, 3).

    Raises:
        EmptyUploadError: `data` is empty.
        UnsupportedImageError: `data` is no image of a kind in `FORMATS`.
        ImageTooLargeError: the header names more than `max_pixels`.
        BrokenImageError: the image is truncated or damaged.
        MemoryError: decoding takes more memory than there is.
    """
    if not data:
        raise EmptyUploadError("the file is empty; send the image's bytes")
    with _open(data) as image:
        if image.width * image.height > max_pixels:
            raise ImageTooLargeError(
                f"the image has {image.width} x {image.height} pixels; make it smaller: at most {max_pixels:,} are "
                "decoded"
            )
        before_pixels(image.width * image.height)
        return _decode(image, size)


def decode_simple(data: bytes, size: tuple[int, int], *, max_pixels: int) -> bytes | None:
    """Do what `decode_image` does if that is safe and takes well under a millisecond; else return None."""
    return decode_image(data, size, max_pixels=max_pixels) if data and is_simple(data) else None


def encode_png(image: "NDArray[np.uint8]") -> bytes:
    """Encode (height, width, 3) uint8 RGB as a PNG, bit by bit."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        if any(accept is not None and accept(data[:16]) is True for _, accept in map(Image.OPEN.__getitem__, FORMATS)):
            raise BrokenImageError("the image's header is damaged or cut short; send the whole file") from error
        raise UnsupportedImageError(
            f"the file is no image of a kind that is read; save it as one of them: {', '.join(FORMAT_NAMES)}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(error) from error


def _decode(image: Image.Image, size: tuple[int, int]) -> bytes:
    height, width = size
    try:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the time. No other format listens.
        least = math.ceil(_DRAFT_GAP * max(size))
        image.draft(None, (least, least))
        image.load()
        if image.mode == "P" and image.palette is None:  # Pillow would make up one, at times
            raise BrokenImageError(
                "the image names colours of a palette that it does not have; save it anew as PNG or JPEG"
            )
        return _fit(image, (width, height)).tobytes()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # on hostile bytes Pillow raises a dozen kinds, some only where it converts the pixels
        raise _broken(error) from error


def _broken(error: Exception) -> BrokenImageError:
    logger.debug("image refused: %s", error)  # in Pillow's words, which are for programmers
    return BrokenImageError(
        "the image is damaged or cut short, or of a rare variety; send the whole file, or save it anew as PNG or JPEG"
    )


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bring a decoded image of any mode to RGB, upright, at `size` (width, height)."""
    orientation = _read_orientation(image)
    if (image.mode, image.size, orientation) == ("RGB", size, 1) and not image.has_transparency_data:
        return image
    width, height = size[::-1] if orientation in _SIDEWAYS else size
    # Averages large images by whole factors first, down to three times the size or more: much cheaper than to resize
    # the whole, and hardly different.
    across, down = max(1, image.width // width // 3), max(1, image.height // height // 3)
    reduced = _reduce(image, across, down)
    # Premultiplies alpha, so that what lies under clear pixels never shows.
    box = (0, 0, image.width / across, image.height / down)
    fitted = reduced.resize((width, height), Image.Resampling.LANCZOS, box=box)
    if fitted.mode == "RGBA":
        fitted = Image.alpha_composite(Image.new("RGBA", fitted.size, (255, 255, 255, 255)), fitted).convert("RGB")
    return fitted.transpose(_TURNS[orientation]) if orientation in _TURNS else fitted


def _reduce(image: Image.Image, across: int, down: int) -> Image.Image:
    """Bring an image of any mode to RGB, or RGBA if anything in it is transparent, and average by whole factors.

    Strip by strip: the whole of it in another mode would take as much memory again.
    """
    if across == down == 1:
        return _convert(image)
    rows = down * max(1, _STRIP_PIXELS // (image.width * down))
    strips = [
        _convert(image.crop((0, top, image.width, min(top + rows, image.height)))).reduce((across, down))
        for top in range(0, image.height, rows)
    ]
    reduced = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    for index, strip in enumerate(strips):
        reduced.paste(strip, (0, index * rows // down))
    return reduced


def _convert(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":  # 16-bit grey: Pillow's own conversion clips where it should scale
        image = _scale_gray(image)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _scale_gray(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey to 8 bits by its upper halves; a transparent value, named by all of its bits, gets alpha 0."""
    values = image.tobytes()  # little-endian
    upper = Image.frombytes("L", image.size, values[1::2])
    clear = image.info.get("transparency")
    if clear is None:
        return upper
    lower = Image.frombytes("L", image.size, values[::2])
    differs = ImageChops.lighter(_differ(upper, clear >> 8), _differ(lower, clear & 0xFF))
    upper.putalpha(differs)
    return upper


def _differ(image: Image.Image, value: int) -> Image.Image:
    return image.point([0 if other == value else 255 for other in range(256)])


def _read_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a picture that every viewer shows
        logger.debug("EXIF ignored", exc_info=True)
        return 1
