"""The largest images that are taken, two at once, beside all else that takes memory: within what a container has."""

import io
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from app.settings import Settings
from tests.app.process import ROOT, Process, ask
from tests.reliability.test_reload import copy_version

DECODE_THREADS = 2
UPRIGHT = 0x0112


def encode(kind: str, mode: str, megapixels: float, *, turned: bool = False, **options: Any) -> bytes:
    """Make a picture of one colour: next to no bytes, and as many pixels as are asked for."""
    side = int((megapixels * 1e6) ** 0.5)
    exif = Image.Exif()
    exif[UPRIGHT] = 6 if turned else 1
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


# At 99 % of the default limit of 50 megapixels, and of what each kind may have of it.
LARGEST: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encode("JPEG", "RGB", 49.5),
    "progressive JPEG": lambda: encode("JPEG", "RGB", 24.75, progressive=True, subsampling=0),
    "progressive JPEG for print": lambda: encode("JPEG", "CMYK", 24.75, progressive=True, subsampling=0),
    "PNG, transparent and turned": lambda: encode("PNG", "RGBA", 49.5, turned=True, compress_level=1),
    "PNG with a transparent colour": lambda: encode("PNG", "P", 49.5, compress_level=1, transparency=0),
    "GIF": lambda: encode("GIF", "P", 49.5, transparency=0),
    "BMP": lambda: encode("BMP", "1", 49.5),
    "WEBP, transparent": lambda: encode("WEBP", "RGBA", 12.375, lossless=True, quality=0, method=0),
    "AVIF": lambda: encode("AVIF", "RGBA", 12.375, speed=10, subsampling="4:4:4"),
}


def read_peak(process: Process) -> int:
    """Return the most memory that the process has had, in bytes, since it was last reset."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])


def reset_peak(process: Process) -> int:
    """Forget the peak; return the memory of now."""
    Path(f"/proc/{process.popen.pid}/clear_refs").write_text("5")
    return read_peak(process)


def send_at_once(process: Process, *images: bytes) -> list[int]:
    """Send each image on a connection of its own; return the statuses."""

    def send(data: bytes) -> int:
        connection = process.connect()
        try:
            return ask(connection, "POST", "/predict", data)[0]
        finally:
            connection.close()

    with ThreadPoolExecutor(len(images)) as threads:
        return list(threads.map(send, images))


def read_container() -> tuple[int, dict[str, str]]:
    """Return the memory of the service's container, in bytes, and its settings."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["serve"]
    assert service["deploy"]["resources"]["limits"]["memory"] == "1g"
    return 2**30, {name: str(value) for name, value in service["environment"].items() if value}


def test_the_largest_images_take_what_is_promised(start, models, tell):
    """Two of each kind at once, served, at 4 bytes a pixel of the limit each."""
    process = start(model_dir=models, precision="f32", max_batch_size=2)
    process.wait_until("ok")
    promised = DECODE_THREADS * 4 * Settings().max_image_pixels
    for kind, make in LARGEST.items():
        data = make()
        before = reset_peak(process)
        assert send_at_once(process, data, data) == [200, 200], kind
        taken = read_peak(process) - before
        print(f"{kind}: {len(data):,} bytes, {taken / 2**20:.0f} MiB for two")
        assert taken < 1.1 * promised, kind
    tell("images at the limit of pixels, two at once: not served, or over the memory promised", 2 * len(LARGEST), 0)


@pytest.mark.timeout(180)
def test_all_at_once_stays_within_the_container(start, shipped, tell):
    """Bodies up to their limit, the largest images in every decoding thread, and the next version being loaded."""
    limit, settings = read_container()
    process = start(**{name.removeprefix("APP_").lower(): value for name, value in settings.items()} | {
        "model_dir": shipped, "precision": "f32", "model_poll_seconds": 0.1,
    })  # fmt: skip
    process.wait_until("ok")
    images = [LARGEST["PNG, transparent and turned"](), LARGEST["WEBP, transparent"]()]
    bodies, each = int(settings["APP_MAX_UPLOADS_TOTAL_BYTES"]), Settings().max_upload_bytes
    uploads = []
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {each}\r\n\r\n".encode()
    for _ in range(bodies // each - 1):  # the images need a little, too
        uploads.append(socket.create_connection(("127.0.0.1", process.port), timeout=10))
        uploads[-1].sendall(head + bytes(each - 1))
    folder = next(shipped.glob("*/*"))
    version = int(folder.name) + 1
    copy_version(folder, version)
    deadline = time.monotonic() + 60
    served = 0
    while process.get("/health")[1]["model"]["version"] != version:
        assert time.monotonic() < deadline
        statuses = send_at_once(process, *images)
        assert statuses == [200, 200]
        served += len(statuses)
    peak = read_peak(process)
    print(f"{peak / 2**20:.0f} MiB at most, of {limit / 2**20:.0f}")
    for upload in uploads:
        upload.close()
    shutil.rmtree(folder)
    assert peak < limit
    tell("images at the limit beside uploads and a reload: not served, or over the container's memory", served, 0)
