"""Decodes an image file to pixels. The only module that uses Pillow. It knows no model, settings or process.

Decode untrusted files in a decoder process (`app.images.decoders`), because this module does not limit their cost.
The format is detected from the bytes, not from a content type. Colour profiles are ignored, as in training.
"""

import copy  # noqa: F401 - Pillow imports it for the first GIF
import io
import logging
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import (  # with the plugins, which Pillow would import at the first file that needs them
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    Image,
    ImageChops,
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401 - reads EXIF
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile

from app.errors import BrokenImageError, EmptyUploadError, ImageError, ImageTooLargeError, UnsupportedImageError
from app.images.formats import FORMAT_NAMES, JPEG, PNG, describe_unsupported, is_simple
from app.images.repair import FILLER, find_frame, find_scans, is_zeroed, strip_png

if TYPE_CHECKING:  # without NumPy, a decoder process starts in half the time, with half the memory
    import numpy as np
    from numpy.typing import NDArray

FORMATS = [name.upper() for name in FORMAT_NAMES if name != "HEIC"]  # Pillow's names

# Pillow's limit applies to the whole process and partly only warns. `decode_image` has a limit per call.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # several images are decoded at the same time already
Image.preinit()
# Pillow's warnings about client files are not actionable for operators.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")

# A JPEG is decoded at a reduced size that is at least this many times the result: 512 x 384 at 64 x 48, 640 x 480 at 80
# x 60. Of 2,500 test images enlarged to these sizes, 99.2 % and 99.3 % keep the label that they get at full size. A gap
# of 2 chooses the next larger size: 99.5 %, in 1.5 times the time.
_DRAFT_GAP = 1.5
# No image has a last row in exactly this colour.
_UNLIKELY = (1, 254, 3, 254)
# Number of pixels that are converted at once before they are reduced.
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
_PNG_BITS = 24  # where a PNG's header says how many a sample has

logger = logging.getLogger(__name__)


def read_heic() -> None:
    """Support HEIC in this process from now on. The service's process does not load libheif, which is large."""
    import pillow_heif  # noqa: PLC0415 - see above

    # Thumbnails may show another image. With threads (not 0), tiled images take ten times as long on busy processors.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=0)
    FORMATS.append("HEIF")


def decode_image(
    data: bytes, size: tuple[int, int], *, max_pixels: int, before_pixels: Callable[[int], None] = lambda _: None
) -> bytes:
    """Decode one image file and fit it to the model.

    Applies EXIF orientation, composites transparency on white and takes the first frame of an animation. An RGB image
    of the right size passes unchanged. Others are resized with antialiasing, ignoring the aspect ratio.

    Args:
        data: the file.
        size: height and width of the result, in pixels.
        max_pixels: maximum number of pixels in the header.
        before_pixels: called with the number of pixels before they are decoded.

    Returns:
        RGB pixels, (height, width, 3) uint8, as bytes.

    Raises:
        EmptyUploadError: `data` is empty.
        UnsupportedImageError: `data` is not an image in one of `FORMATS`.
        ImageTooLargeError: the header has more than `max_pixels`.
        BrokenImageError: the image is truncated or damaged.
        MemoryError: there is not enough memory.
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
        return _decode(image, data, size)


def decode_simple(data: bytes, size: tuple[int, int], *, max_pixels: int) -> bytes | None:
    """Decode like `decode_image` if that is safe and takes much less than a millisecond; otherwise return None."""
    return decode_image(data, size, max_pixels=max_pixels) if data and is_simple(data) else None


def encode_png(image: "NDArray[np.uint8]") -> bytes:
    """Encode (height, width, 3) uint8 RGB as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(_repair(data)), formats=FORMATS)
    except UnidentifiedImageError as error:
        if described := describe_unsupported(data):
            raise UnsupportedImageError(described) from error
        if any(accept is not None and accept(data[:16]) is True for _, accept in map(Image.OPEN.__getitem__, FORMATS)):
            raise BrokenImageError("the image's header is damaged or cut short; send the whole file") from error
        raise UnsupportedImageError(
            f"the file is not an image in a supported format; save it as one of: {', '.join(FORMAT_NAMES)}"
        ) from error
    except (BrokenImageError, MemoryError):
        raise
    except Exception as error:
        raise _broken(error) from error


def _repair(data: bytes) -> bytes:
    """Change a file so that Pillow ignores harmless damage but notices missing pixels.

    Raises:
        BrokenImageError: pixels are missing.
    """
    if data.startswith(PNG):
        return strip_png(data)
    if not data.startswith(JPEG):
        if is_zeroed(data):
            raise _broken("it ends in zeros")
        return data
    scans = find_scans(data)
    if not scans.are_all:
        raise _broken("scans are missing")
    # libjpeg invents the pixels between the last byte and the end marker. Without the marker, `_load` can detect them.
    return data[: scans.end] + FILLER + (b"" if scans.has_one else b"\xff\xd9")


def _load(image: Image.Image) -> None:
    """Decode the pixels, and check that a JPEG, whose end marker was removed, has all of them.

    Raises:
        OSError, SyntaxError, ValueError, …: the image is damaged.
    """
    if not isinstance(image, JpegImageFile):
        image.load()
        return
    image.load_prepare()
    unlikely = _UNLIKELY[: len(image.getbands())]
    image.im.paste(unlikely, (0, 0, *image.size))
    try:
        image.load()
    except OSError:
        last_row = image.crop((0, image.height - 1, image.width, image.height))
        if last_row.tobytes() == bytes(unlikely) * image.width:
            raise


def _decode(image: Image.Image, data: bytes, size: tuple[int, int]) -> bytes:
    height, width = size
    try:
        # JPEGs can be decoded at 1/2, 1/4 or 1/8 of their size in a fraction of the time. Other formats ignore this.
        least = math.ceil(_DRAFT_GAP * max(size))
        image.draft(None, (least, least))
        if getattr(image, "default_image", False):
            image.seek(1)  # the first one is for programs without support for animated PNG
        frame = image.tile[0].extents if isinstance(image, GifImageFile) else find_frame(data)
        _load(image)
        return _fit(_clear(image, data, frame), (width, height)).tobytes()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        raise _broken(error) from error


def _clear(image: Image.Image, data: bytes, frame: tuple[int, int, int, int] | None) -> Image.Image:
    """Correct Pillow where it shows other pixels as transparent than browsers do.

    Args:
        image: the decoded image.
        data: its file.
        frame: left, top, right and bottom of the first frame of an animation.
    """
    transparency = image.info.get("transparency")
    if image.mode == "P" and image.palette is None:  # Pillow may invent one
        raise BrokenImageError("the image has no palette for its colours; save it again as PNG or JPEG")
    if image.format == "BMP" and image.mode == "RGBA" and image.getextrema()[-1] == (0, 0):
        image.putalpha(255)  # the fourth byte is unused
    elif image.format == "PNG" and image.mode in {"1", "L"} and transparency is not None:
        image.info["transparency"] = transparency * 255 // (2 ** data[_PNG_BITS] - 1)  # scale it like the pixels
    elif image.format == "PNG" and isinstance(transparency, tuple) and data[_PNG_BITS] == 16:  # noqa: PLR2004
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    elif frame and frame != (0, 0, *image.size) and not image.has_transparency_data:
        left, top, right, bottom = frame
        image = image.convert("RGB")  # in which Pillow has given the rest a colour
        for box in (
            (0, 0, image.width, top),
            (0, bottom, image.width, image.height),
            (0, top, left, bottom),
            (right, top, image.width, bottom),
        ):
            image.paste((255, 255, 255), box)
    return image


def _broken(error: Exception | str) -> BrokenImageError:
    logger.debug("image rejected: %s", error)  # Pillow's message is for programmers
    return BrokenImageError(
        "the image is damaged or cut short, or uses a rare variant of its format; send the whole file, or save it "
        "again as PNG or JPEG"
    )


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Convert a decoded image of any mode to RGB, upright, at `size` (width, height)."""
    orientation = _read_orientation(image)
    if (image.mode, image.size, orientation) == ("RGB", size, 1) and not image.has_transparency_data:
        return image
    width, height = size[::-1] if orientation in _SIDEWAYS else size
    # First average large images by whole factors, to at least three times the size. That is much faster than resizing
    # the whole image, with nearly the same result.
    across, down = max(1, image.width // width // 3), max(1, image.height // height // 3)
    reduced = _reduce(image, across, down)
    # Premultiplies alpha, so that the colour of transparent pixels never shows.
    box = (0, 0, image.width / across, image.height / down)
    fitted = reduced.resize((width, height), Image.Resampling.LANCZOS, box=box)
    if fitted.mode == "RGBA":
        fitted = Image.alpha_composite(Image.new("RGBA", fitted.size, (255, 255, 255, 255)), fitted).convert("RGB")
    return fitted.transpose(_TURNS[orientation]) if orientation in _TURNS else fitted


def _reduce(image: Image.Image, across: int, down: int) -> Image.Image:
    """Convert an image of any mode to RGB, or to RGBA if it has transparency, and average by whole factors.

    It works in strips, because converting the whole image would double the memory.
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
    if image.mode == "I;16":  # 16-bit grey, which Pillow's conversion clips instead of scaling
        image = _scale_gray(image)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _scale_gray(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to its upper 8 bits. Pixels of the transparent 16-bit value get alpha 0."""
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
    if not (data := image.info.get("exif")):
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)  # `image.getexif()` also reads XMP, which browsers ignore
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # image viewers ignore a damaged EXIF block too
        logger.debug("EXIF ignored", exc_info=True)
        return 1
