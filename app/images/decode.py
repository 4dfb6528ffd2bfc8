"""From an uploaded file's bytes to the model's input. The only module that knows Pillow; it knows no model and no web.

The format is told from the bytes, never from the client's word. Colour profiles are ignored, as they were in training.
"""

import io
import logging
import math
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from app.errors import BrokenImageError, EmptyUploadError, ImageTooLargeError, UnsupportedImageError
from app.images.scans import list_scans

FORMAT_NAMES = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF")
FORMATS = tuple(name.upper() for name in FORMAT_NAMES)  # as Pillow has them

# Pillow's own limit is one for the process and partly a warning; `decode_image` holds a stricter one per call.
Image.MAX_IMAGE_PIXELS = None
# What is odd in a client's file is no news for the operator.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
Image.init()

SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
"""How names of image files end; only for finding them: what a file is, its bytes tell."""

# What is decoded sooner than a thread takes it over: a picture of the size that such models take, as a file that holds
# little else.
QUICK_BYTES = 4096
QUICK_PIXELS = 128 * 128
QUICK_FORMATS = {"JPEG", "PNG"}
# What Pillow unpacks of a PNG as soon as it opens it: up to 1 MB for each kB of the file, in 4 ms. Programs write few.
_PACKED_CHUNKS = (b"zTXt", b"iTXt", b"iCCP")
_MAX_PACKED_CHUNKS = 64

# A decoded image takes 4 bytes a pixel, and what takes more while it is decoded may have fewer pixels. libjpeg keeps up
# to 8 bytes a pixel of a JPEG that it has to go over several times; libwebp and libavif keep copies, and Pillow adds
# one: 16 and 13 bytes were measured.
_SEVERAL_SCANS_WEIGHT = 2
_WEIGHTS = {"WEBP": 4, "AVIF": 4}
# So often any file may be read. A read takes a byte at least, so a file of no more bytes need not be counted.
_FREE_READS = 10_000
# As wide and high as a JPEG or GIF can be. Decoders of PNG keep two rows of up to 8 bytes a pixel.
MAX_SIDE = 65_535
# What BMP calls its two compressions, which Pillow undoes in Python: seconds in which nothing else runs.
_RUN_LENGTHS = {1, 2}
# Pillow puts a JPEG's EXIF together segment by segment, and copies all that it has each time. One is what there is.
_MAX_EXIF_SEGMENTS = 64
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


class _File(io.BytesIO):
    """A file that is read in large pieces.

    Pillow looks for the picture in Python, a read for each small piece: 16 MB of nothing else would keep a thread, and
    Python's lock, for 5 s. An encoder's pieces have thousands of bytes each.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = _FREE_READS + len(data) // 256

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise BrokenImageError("the image's file has too many small parts; save it anew as PNG or JPEG")
        return super().read(size)


def decode_image(data: bytes, size: tuple[int, int], *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one image file and fit it to the model.

    Orientation from EXIF is applied, transparency shows white, an animation gives its first frame. An RGB image that
    already has the right size passes bit by bit; any other is resized with antialiasing, its aspect ratio ignored.

    Args:
        data: the file.
        size: height and width of the result, in pixels.
        max_pixels: the most that are decoded, by what the file's header says: half of it of a JPEG with several scans,
            a quarter of WebP and AVIF.

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
        _require_moderate(image, data, max_pixels)
        return _decode(image, size)


def decode_quickly(data: bytes, size: tuple[int, int], *, max_pixels: int) -> NDArray[np.uint8] | None:
    """Do what `decode_image` does if that takes well under a millisecond; else return None."""
    if not 0 < len(data) <= QUICK_BYTES or any(chunk in data for chunk in _PACKED_CHUNKS):
        return None
    with _open(data) as image:
        if image.format not in QUICK_FORMATS or image.width * image.height > QUICK_PIXELS:
            return None
        _require_moderate(image, data, max_pixels)
        return _decode(image, size)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode (height, width, 3) uint8 RGB as a PNG, bit by bit."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    if (
        data.count(b"Exif\0\0") > _MAX_EXIF_SEGMENTS
        or sum(data.count(chunk) for chunk in _PACKED_CHUNKS) > _MAX_PACKED_CHUNKS
    ):
        raise BrokenImageError(
            "the image has more descriptions than any camera or program writes; save it anew as PNG or JPEG"
        )
    try:
        image = Image.open(_File(data) if len(data) > _FREE_READS else io.BytesIO(data), formats=FORMATS)
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:
        if any(accept is not None and accept(data[:16]) is True for _, accept in map(Image.OPEN.__getitem__, FORMATS)):
            raise BrokenImageError("the image's header is damaged or cut short; send the whole file") from error
        raise UnsupportedImageError(
            f"the file is no image of a kind that is read; save it as one of them: {', '.join(FORMAT_NAMES)}"
        ) from error
    except Exception as error:
        raise _broken(error) from error
    # Whole, else what libjpeg finds no end of is gone over again for each 64 kB: 4 s for 16 MB of 0xFF.
    image.decodermaxblock = max(image.decodermaxblock, len(data))
    return image


def _require_moderate(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse what takes more time or memory to decode than its size would tell, before anything is decoded.

    Raises:
        ImageTooLargeError, BrokenImageError, UnsupportedImageError: it does.
    """
    weight = _WEIGHTS.get(image.format or "", 1)
    if isinstance(image, JpegImageFile):
        if list_scans(data) != [image.layers] or "progressive" in image.info:
            weight = _SEVERAL_SCANS_WEIGHT
    elif image.format == "BMP" and image.info.get("compression") in _RUN_LENGTHS:
        raise UnsupportedImageError("a compressed BMP is not read; save it as PNG")
    found = f"the image has {image.width} x {image.height} pixels; make it smaller: "
    if image.width * image.height > max_pixels // weight:
        raise ImageTooLargeError(f"{found}of its kind at most {max_pixels // weight:,} are decoded")
    if max(image.size) > MAX_SIDE:
        raise ImageTooLargeError(f"{found}at most {MAX_SIDE:,} in a row or column are decoded")


def _decode(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
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
        return np.array(_fit(image, (width, height)), dtype=np.uint8)
    except BrokenImageError:
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
        fitted = Image.alpha_composite(Image.new("RGBA", fitted.size, "white"), fitted).convert("RGB")
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
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips where it should scale
        values, clear = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray((values >> 8).astype(np.uint8))
        if clear is not None:
            image.putalpha(Image.fromarray(np.where(values == clear, np.uint8(0), np.uint8(255))))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _read_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse a picture that every viewer shows
        logger.debug("EXIF ignored", exc_info=True)
        return 1
