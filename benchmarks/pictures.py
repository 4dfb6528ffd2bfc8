"""Makes the image files that the benchmarks send, from the sample images beside the model.

Samples are resized. Large ones get seeded noise, so that their files are as large as a camera's.
"""

import base64
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.contract import GOLDEN_FILE, METADATA_FILE, ModelMetadata
from app.images.decode import encode_png
from benchmarks.services import Body

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models" / "minimodel"
BOUNDARY = "benchmark"

Kind = tuple[str, tuple[int, int], float]  # format, width and height in pixels, standard deviation of the noise
SMALL: Kind = ("PNG", (32, 32), 0.0)
MEDIUM: Kind = ("JPEG", (640, 480), 4.0)  # about 64 kB
PHOTO: Kind = ("JPEG", (4000, 3000), 2.0)  # about 1 MB


class Known(NamedTuple):
    """An image and the correct answer of the model."""

    data: bytes
    label: str
    probability: float


def find_version() -> Path:
    """Return the folder of the newest shipped version."""
    return max((path for path in MODELS.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def make_known(version: Path) -> Known:
    """Encode the golden image with the highest probability. It has the model's size, so all services must agree."""
    metadata = ModelMetadata.model_validate_json((version / METADATA_FILE).read_bytes())
    with np.load(version / GOLDEN_FILE) as golden:
        images, probabilities = golden["images"], golden["probabilities"]
    index, best = np.unravel_index(probabilities.argmax(), probabilities.shape)
    return Known(encode_png(images[index]), metadata.class_names[best], float(probabilities[index, best]))


def make_pictures(kind: Kind) -> list[bytes]:
    """Encode each sample image as a file of this kind."""
    rng = np.random.default_rng(0)
    return [_encode(path, kind, rng) for path in sorted((MODELS / "samples").glob("*.jpg"))]


def encode_body(data: bytes, body: Body) -> tuple[str, bytes]:
    """Return the content type and the bytes of a request that sends a file from `make_pictures`."""
    media_type = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
    if body == "raw":
        return media_type, data
    if body == "v2":
        text = base64.b64encode(data).decode()
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
        return "application/json", json.dumps({"inputs": [tensor]}).encode()
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="picture"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    )
    content = head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    return f"multipart/form-data; boundary={BOUNDARY}", content


def _encode(path: Path, kind: Kind, rng: np.random.Generator) -> bytes:
    format_name, size, deviation = kind
    with Image.open(path) as image:
        resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    if deviation:
        grain = rng.normal(0, deviation, (size[1], size[0], 1)).astype(np.float32)
        noisy: NDArray[np.float32] = np.asarray(resized, np.float32) + grain
        resized = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    resized.save(buffer, format_name, quality=85)  # ignored for PNG
    return buffer.getvalue()
