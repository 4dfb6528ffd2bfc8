"""Changes the test images as clients might send them: compressed again, enlarged, grey, smaller or cropped.

Encoded images are decoded with the service's `decode_image`, so the results are those of an upload.
"""

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from app.images.decode import decode_image
from app.runtime.load import Images
from training.augment import LUMA

ENLARGED_8 = "32 px PNG enlarged ×8, as PNG"
BLOCK = 100  # images to enlarge at once; ten thousand would not fit into memory
MAX_PIXELS = 1_000_000  # more than any file here has


def name_variant(name: str, size: int) -> str:
    """Return the name of a variant for images of `size` pixels; the names in `VARIANTS` are for 32."""
    return name.replace("32 px", f"{size} px")


def encode_jpeg(images: Images, quality: int) -> Images:
    """Return (N, H, W, 3) images after JPEG at `quality`."""
    return _decode((tf.io.encode_jpeg(image, quality=quality).numpy() for image in images), images.shape[1])


def enlarge(images: Images, size: int) -> Images:
    """Return (N, H, W, 3) images after bicubic enlargement to `size` pixels and the service's resizing."""
    blocks = (_resize(images[start : start + BLOCK], size) for start in range(0, len(images), BLOCK))
    files = (tf.io.encode_png(image, compression=0).numpy() for block in blocks for image in block)
    return _decode(files, images.shape[1])


def turn_gray(images: Images) -> Images:
    """Return the images without colour."""
    gray = np.clip(images @ np.array(LUMA) + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def shrink(images: Images, factor: float) -> Images:
    """Return each picture at `factor` of its size, in the middle of a border of its mean colour."""
    size = images.shape[1]
    inner = round(size * factor)
    start = (size - inner) // 2
    framed = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True).astype(np.uint8), images.shape).copy()
    framed[:, start : start + inner, start : start + inner] = _resize(images, inner)
    return framed


def crop(images: Images, factor: float) -> Images:
    """Return the middle of each picture, `factor` times as large."""
    size = images.shape[1]
    inner = round(size / factor)
    start = (size - inner) // 2
    return _resize(images[:, start : start + inner, start : start + inner], size)


VARIANTS: dict[str, Callable[[Images], Images]] = {
    "JPEG again, quality 90": lambda images: encode_jpeg(images, 90),
    "JPEG again, quality 50": lambda images: encode_jpeg(images, 50),
    "JPEG again, quality 30": lambda images: encode_jpeg(images, 30),
    "enlarged to 224 px, as PNG": lambda images: enlarge(images, 224),
    ENLARGED_8: lambda images: enlarge(images, 8 * images.shape[1]),
    "grey": turn_gray,
    "object at 0.7 × on a plain border": lambda images: shrink(images, 0.7),
    "object at 1.3 ×, cropped": lambda images: crop(images, 1.3),
}


def _resize(images: Images, size: int) -> Images:
    # Only shrinking needs antialiasing, which is slow.
    resized = tf.image.resize(images, (size, size), "bicubic", antialias=size < images.shape[-2])
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8).numpy()


def _decode(files: Iterable[bytes], size: int) -> Images:
    pixels = [decode_image(file, (size, size), max_pixels=MAX_PIXELS) for file in files]
    return np.stack([np.frombuffer(image, np.uint8).reshape(size, size, 3) for image in pixels])
