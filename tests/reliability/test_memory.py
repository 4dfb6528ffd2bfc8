"""The memory of the largest accepted images, with everything else that takes memory, fits into the container."""

import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from PIL import ExifTags, Image

from app.images.worker import Limits
from app.settings import Settings
from tests.app.bombs import LIMIT, fill
from tests.app.process import ROOT, Process
from tests.reliability.memory import Watch, read_memory
from tests.reliability.test_reload import copy_version

# These tests are about memory, so timeouts are long.
PATIENT = {"decode_timeout_seconds": 60, "request_timeout_seconds": 60}


def turn(kind: str, mode: str, size: tuple[int, int], **options: object) -> bytes:
    """Make an image of one colour with an EXIF orientation that turns it on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return fill(kind, mode, size, exif=exif, **options)


# The limit, which fits the largest cameras: 8192 x 6144. For formats that take four times the memory: 4096 x 3072.
LARGEST: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: fill("JPEG", "RGB", LIMIT),
    "progressive JPEG": lambda: fill("JPEG", "RGB", LIMIT, progressive=True),
    "progressive JPEG for print": lambda: fill("JPEG", "CMYK", (5792, 4344), progressive=True, subsampling=0),
    "PNG, transparent and turned": lambda: turn("PNG", "RGBA", LIMIT, compress_level=1),
    "PNG with a transparent colour": lambda: fill("PNG", "P", LIMIT, compress_level=1, transparency=0),
    "GIF": lambda: fill("GIF", "P", LIMIT, transparency=0),
    "BMP": lambda: fill("BMP", "1", LIMIT),
    "WEBP, transparent": lambda: fill("WEBP", "RGBA", (4096, 3072), lossless=True, quality=0, method=0),
    "AVIF": lambda: fill("AVIF", "RGBA", (4096, 3072), speed=10, subsampling="4:4:4"),
    "HEIC": lambda: fill("HEIF", "RGB", (4032, 3024)),
    "HEIC, transparent": lambda: fill("HEIF", "RGBA", (4032, 3024), chroma=444),
}


def send_at_once(process: Process, *images: bytes) -> list[int]:
    """Send each image on its own connection; return the statuses."""

    def send(data: bytes) -> int:
        return process.ask("POST", "/predict", data)[0]

    with ThreadPoolExecutor(len(images)) as threads:
        return list(threads.map(send, images))


def read_container() -> tuple[int, dict[str, str]]:
    """Return the memory limit of the service's container, in bytes, and its settings."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["serve"]
    assert service["deploy"]["resources"]["limits"]["memory"] == "1g"
    values = {name: str(value) for name, value in service["environment"].items() if value}
    return 2**30, {name: value for name, value in values.items() if "${" not in value}


@pytest.mark.timeout(300)
def test_the_largest_images_stay_within_their_memory_limit(start, models, tell):
    """Two of each kind at once are decoded, each in a process below its limit."""
    process = start(model_dir=models, precision="f32", max_batch_size=2, **PATIENT)
    process.wait_until("ok")
    promised = Limits(Settings().max_image_pixels, Settings().max_upload_bytes).memory_bytes
    for kind, make in LARGEST.items():
        data = make()
        before = read_memory(process.popen.pid)
        with Watch(process.popen.pid) as watch:
            assert send_at_once(process, data, data) == [200, 200], kind
        taken = watch.peak - before
        print(f"{kind}: {len(data):,} bytes, {taken / 2**20:.0f} MiB for two")
        assert taken < 2 * promised, kind
    tell(
        "images with the maximum number of pixels, two at once: not decoded, or more than their memory limit",
        2 * len(LARGEST),
        0,
    )


@pytest.mark.timeout(180)
def test_everything_at_once_fits_into_the_container(start, shipped, tell):
    """Request bodies up to their limit, the largest image in every decoder, and the next version being loaded."""
    limit, settings = read_container()
    process = start(**{name.removeprefix("APP_").lower(): value for name, value in settings.items()} | {
        "model_dir": shipped, "precision": "f32", "model_poll_seconds": 0.1, **PATIENT,
    })  # fmt: skip
    process.wait_until("ok")
    images = [LARGEST["PNG, transparent and turned"](), LARGEST["WEBP, transparent"]()]
    bodies, each = int(settings["APP_MAX_UPLOADS_TOTAL_BYTES"]), Settings().max_upload_bytes
    uploads = []
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {each}\r\n\r\n".encode()
    for _ in range(bodies // each - 1):  # leaves some for the images
        uploads.append(socket.create_connection(("127.0.0.1", process.port), timeout=10))
        uploads[-1].sendall(head + bytes(each - 1))
    folder = next(shipped.glob("*/*"))
    version = int(folder.name) + 1
    copy_version(folder, version)
    deadline = time.monotonic() + 60
    served = 0
    with Watch(process.popen.pid) as watch:
        while process.get("/health")[1]["model"]["version"] != version:
            assert time.monotonic() < deadline
            statuses = send_at_once(process, *images)
            assert statuses == [200, 200]
            served += len(statuses)
    print(f"{watch.peak / 2**20:.0f} MiB at most, of {limit / 2**20:.0f}")
    for upload in uploads:
        upload.close()
    shutil.rmtree(folder)
    assert watch.peak < limit
    tell("the same during uploads and a reload: not decoded, or more than the container's memory", served, 0)
