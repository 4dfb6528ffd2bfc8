"""From an uploaded file's bytes to the model's input. The only module that knows Pillow; it knows no model and no web.

The format is told from the bytes, never from the client's word. Colour profiles are ignored, as they were in training.
"""

import io
import logging
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from app.errors import BrokenImageError, EmptyUploadError, ImageTooLargeError, UnsupportedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")

# Pillow's own limit is one for the process and partly a warning; `decode_image` holds a stricter one per call.
Image.MAX_IMAGE_PIXELS = None
# What is odd in a client's file is no news for the operator.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
Image.init()

SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
"""How names of image files end; only for finding them: what a file is, its bytes tell."""

# What is decoded sooner than a thread takes it over: a picture of the size that such models take, as a file that holds
# little else. 4 kB unpack to a few MB at most, whatever is hidden in them.
QUICK_BYTES = 4096
QUICK_PIXELS = 128 * 128
QUICK_FORMATS = {"JPEG", "PNG"}

logger = logging.getLogger(__name__)


def decode_image(data: bytes, size: tuple[int, int], *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one image file and fit it to the model.

    Orientation from EXIF is applied, transparency shows white, an animation gives its first frame. An RGB image that
    already has the right size passes bit by bit; any other is resized with antialiasing, its aspect ratio ignored.

    Args:
        data: the file.
        size: height and width of the result, in pixels.
        max_pixels: the most that are decoded, by what the file's header says.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        EmptyUploadError: `data` is empty.
        UnsupportedImageError: `data` is no image of a kind in `FORMATS`.
        ImageTooLargeError: the header names more than `max_pixels`.
        BrokenImageError: the image is truncated or damaged.
    """
    if not data:
        raise EmptyUploadError("the file is empty; send the image's bytes")
    with _open(data) as image:
        if image.width * image.height > max_pixels:
            raise ImageTooLargeError(
                f"the image has {image.width} x {image.height} pixels; at most {max_pixels:,} are decoded"
            )
        return _decode(image, size)


def decode_quickly(data: bytes, size: tuple[int, int], *, max_pixels: int) -> NDArray[np.uint8] | None:
    """Do what `decode_image` does if that takes well under a millisecond; else return None."""
    if not 0 < len(data) <= QUICK_BYTES:
        return None
    with _open(data) as image:
        quick = image.format in QUICK_FORMATS and image.width * image.height <= min(QUICK_PIXELS, max_pixels)
        return _decode(image, size) if quick else None


def encode_png(image: NDArray[np.uint8]) -> bytes:
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
        raise UnsupportedImageError(f"the file is no image of a kind that is read: {', '.join(FORMATS)}") from error
    except Exception as error:
        raise _broken(error) from error


def _decode(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    try:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the time. Twice the target leaves
        # the resize enough to average; images below that are decoded whole. No other format listens.
        image.draft(None, (2 * max(size), 2 * max(size)))
        image.load()
    except Exception as error:  # on hostile bytes Pillow raises a dozen kinds
        raise _broken(error) from error
    return np.array(_convert_to_rgb(image, (width, height)), dtype=np.uint8)


def _broken(error: Exception) -> BrokenImageError:
    logger.debug("image refused: %s", error)  # in Pillow's words, which are for programmers
    return BrokenImageError(
        "the image is damaged or cut short, or of a rare variety; send the whole file, or save it anew as PNG or JPEG"
    )


def _convert_to_rgb(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bring a decoded image of any mode to RGB, upright, at `size` (width, height)."""
    _turn_upright(image)
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips where it should scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    # Leaves an image of this size as it is. Premultiplies alpha, so that what lies under clear pixels never shows.
    # The gap averages large images by whole factors first: much cheaper, and hardly different.
    image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB")
    return image


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a damaged EXIF block is no reason to refuse a picture that every viewer shows
        logger.debug("EXIF ignored", exc_info=True)
