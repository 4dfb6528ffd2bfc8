"""Parses requests of TensorFlow Serving's REST API: images in JSON, as base64 or as arrays. Knows no HTTP and no model.

See https://www.tensorflow.org/tfx/serving/api_rest. The model has one input, so its name is optional.
"""

import binascii
from base64 import b64decode
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from app.contract import TensorSpec
from app.errors import TensorError, UploadTooLargeError
from app.runtime.load import SIGNATURE

# Maximum number of values in a request besides the numbers of its images.
_OTHER_VALUES = 65_536

Image = bytes | NDArray[np.uint8]
"""An encoded image, or the pixels of one in the model's own size, (H, W, 3) uint8."""


class Instances(NamedTuple):
    """The images of a request."""

    images: list[Image]
    columnar: bool  # "inputs", which are answered with "outputs"; otherwise "instances"


def parse_request(body: bytes, *, model_input: TensorSpec, max_images: int) -> Instances:
    """Read the images from the body of a predict request.

    Args:
        body: JSON with "instances" or "inputs".
        model_input: the model's input.
        max_images: the maximum number of images.

    Raises:
        TensorError: the body is not a predict request, or does not match the model.
        UploadTooLargeError: the body has more values than `max_images` arrays have.
    """
    # A parsed value takes up to 80 bytes. One of these characters precedes every value, and base64 contains none of
    # them.
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > _OTHER_VALUES + 2 * int(np.prod(model_input.shape)) * max_images:
        raise UploadTooLargeError(f"the body has more numbers than {max_images} images; send images as base64")
    try:
        request = from_json(body)  # `json.loads` copies the body, into four times the memory if it has one emoji
    except ValueError as error:
        raise TensorError(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise TensorError('send either "instances" or "inputs", for example {"instances": [{"b64": "…"}]}')
    if (signature := request.get("signature_name")) not in (None, "", SIGNATURE):  # it may be a list
        raise TensorError(f"the model has the signature {SIGNATURE!r}; requested: {str(signature)[:50]!r}")
    columnar = "inputs" in request
    rows = _unwrap(request["inputs"], model_input.name) if columnar else request["instances"]
    if not isinstance(rows, list) or not 1 <= len(rows) <= max_images:
        found = f"a list of {len(rows)}" if isinstance(rows, list) else type(rows).__name__
        raise TensorError(f"send a list of 1 to {max_images} images; sent: {found}")
    images = [_read_image(_unwrap(row, model_input.name), index, model_input) for index, row in enumerate(rows)]
    return Instances(images, columnar)


def _unwrap(value: Any, name: str) -> Any:
    """Return the value under the input's name, or `value` itself."""
    return value[name] if isinstance(value, dict) and value.keys() == {name} else value


def _quote(value: Any) -> str:
    """Return the start of a value that is not a list."""
    if isinstance(value, dict):
        return f"an object of {', '.join(repr(name[:50]) for name in list(value)[:5])}"
    return repr(value[:50] if isinstance(value, str) else value)[:50]


def _read_image(value: Any, index: int, model_input: TensorSpec) -> Image:
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        packed = "".join(value["b64"].split())  # like TensorFlow Serving, accept line breaks and missing padding
        try:
            return b64decode(packed + "=" * (-len(packed) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise TensorError(f"image {index}: the base64 is damaged") from error
    if not isinstance(value, list):
        raise TensorError(
            f'image {index} is neither {{"b64": "…"}} nor an array, by itself or as {model_input.name!r}: '
            f"{_quote(value)}"
        )
    pixels = np.asarray(value, dtype=object)  # otherwise NumPy would store each number in the space of the longest text
    kinds = {type(number) for number in pixels.ravel()}  # not `pixels.flat`, which raises at 33 dimensions
    if pixels.shape != model_input.shape or kinds != {int}:
        found = " and ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
        raise TensorError(
            f"image {index}: an array has the shape {list(model_input.shape)}, of integers from 0 to 255; "
            f"sent: {list(pixels.shape)[:8]} of {found}"
        )
    try:
        return pixels.astype(np.uint8)
    except OverflowError as error:
        raise TensorError(f"image {index}: pixels are integers from 0 to 255") from error
