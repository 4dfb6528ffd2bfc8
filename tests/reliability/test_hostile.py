"""Hostile files and requests cause no 5xx, no hang and no growth."""

import contextlib
import io
import os
import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from random import Random

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image

from tests.app.pictures import write_chunk  # so that Pillow can write HEIC
from tests.app.process import Process
from tests.reliability.memory import read_memory

# `make fuzz` sets more. Each example is one request to a real process.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))
LONGEST_SECONDS = 2.0
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "HEIF")


def encode(kind: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


SEEDS = {
    **{kind: encode(kind) for kind in FORMATS},
    "JPEG progressive": encode("JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "PNG palette": encode("PNG", mode="P"),
    "PNG 16-bit": encode("PNG", mode="I;16"),
    "WEBP lossless": encode("WEBP", lossless=True),
    "WEBP animation": encode("WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    "HEIF in tiles": encode("HEIF", (128, 128), tile_size=64),
}


@pytest.fixture(scope="module")
def process(exported: Path) -> Iterator[Process]:
    """One service for all tests, so that the damage of a file would show in later ones."""
    process = Process(
        model_dir=exported.parent.parent, max_batch_size=4, max_image_pixels=2_000_000, decode_timeout_seconds=1
    )
    process.wait_until("ok")
    yield process
    assert process.get("/health")[0] == 200
    assert not [line for line in process.log if "Traceback" in line]
    process.end()


@pytest.fixture(scope="module")
def connection(process: Process) -> Iterator[HTTPConnection]:
    connection = process.connect()
    yield connection
    connection.close()


def send(connection: HTTPConnection, body: bytes, content_type: str = "image/png", path: str = "/predict") -> int:
    """Send a body; check that the answer is a success or a client error, and that it came in time."""
    started = time.monotonic()
    connection.request("POST", path, body, {"content-type": content_type})
    response = connection.getresponse()
    answer = response.read()
    assert response.status < 500, answer
    assert time.monotonic() - started < LONGEST_SECONDS
    return response.status


def count_restarts(process: Process) -> int:
    """Return how many decoder processes were replaced."""
    connection = process.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return sum(
        int(float(count)) for count in re.findall(r"^classifier_decoder_restarts_total{.*} (.*)$", text, re.MULTILINE)
    )


def read_resident(process: Process) -> int:
    """Return the memory of the service's own process. A decoder may keep some, up to its limit."""
    return int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1]) * 4096


def mutate(random: Random, data: bytes) -> bytes:
    """Change a real file in a few places: bytes, runs of bytes, its end, or a piece that moves."""
    file = bytearray(data)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(file) + 1)
        kind = random.choice(("byte", "byte", "word", "cut", "insert", "copy", "delete"))
        if kind == "byte":
            file[at : at + 1] = random.randbytes(1)
        elif kind == "word":
            file[at : at + 4] = random.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"))
        elif kind == "cut":
            del file[at:]
        elif kind == "insert":
            file[at:at] = random.randbytes(random.randint(1, 64))
        elif kind == "copy":
            file[at:at] = file[at : at + random.randint(1, 256)]
        else:
            del file[at : at + random.randint(1, 64)]
    return bytes(file)


@pytest.mark.parametrize("seed", list(SEEDS))
@pytest.mark.timeout(3600)
def test_damaged_files_do_no_harm(process, connection, tell, seed):
    """Thousands of files in every supported format get an answer or a client error, in time."""
    random = Random(f"{seed} {EXAMPLES}")  # noqa: S311 - reproducible
    restarts, answers = count_restarts(process), Counter[int]()
    for _ in range(EXAMPLES):
        answers[send(connection, mutate(random, SEEDS[seed]))] += 1
    restarts = count_restarts(process) - restarts
    print(f"{seed}: {dict(answers)}, {restarts} decoder processes replaced")
    assert set(answers) <= {200, 400, 413, 415, 422}
    tell("damaged files of every format: 5xx, or over 2 s", EXAMPLES, 0)
    tell("decoder processes that such files crashed: another file affected", restarts, 0)


def test_memory_stays_flat_under_damaged_files(process, connection):
    """Sending the same damaged files repeatedly leaks nothing."""
    files = [data[: len(data) * part // 7] for data in SEEDS.values() for part in range(1, 7)]
    for data in files * 3:
        send(connection, data)
    before = read_memory(process.popen.pid)
    for data in files * 10:
        send(connection, data)
    assert read_memory(process.popen.pid) - before < 16 * 2**20


def write_png(width: int, height: int, *chunks: bytes) -> bytes:
    header = write_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + write_chunk(b"IEND", b"")


def make_gif(frames: int) -> bytes:
    images = [Image.new("P", (64, 64), i % 256) for i in range(frames)]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:])
    return buffer.getvalue()


def repeat(kind: str, at: int, piece: bytes) -> bytes:
    """Put 15 MB of one repeated piece into a file."""
    data = encode(kind)
    return data[:at] + piece * (15_000_000 // len(piece)) + data[at:]


def cut_scan(jpeg: bytes) -> bytes:
    """Return the bytes before the pixels."""
    return jpeg[: jpeg.index(b"\xff\xda") + 14]


def make_scans() -> bytes:
    """Make a progressive JPEG of 1.4 megapixels that repeats its last scan; each one passes over all pixels."""
    data = encode("JPEG", (1400, 1000), "L", progressive=True)
    return data[:-2] + b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0\0" * 200_000 + data[-2:]


def make_runs() -> bytes:
    """Make a BMP of 1.4 megapixels with a run for each pixel."""
    head = struct.pack("<IiiHHIIiiII", 40, 1400, 1000, 1, 8, 1, 0, 0, 0, 2, 2)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 62) + head + bytes(8) + b"\x01\x01" * 1_400_000 + b"\0\x01"


def name_size(kind: str) -> bytes:
    """Make a file whose header says 30,000 × 30,000 pixels."""
    data = bytearray(encode(kind))
    if kind == "PNG":
        return write_png(30_000, 30_000, write_chunk(b"IDAT", zlib.compress(bytes(10_000_000))))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 30_000, 30_000)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", 30_000, 30_000)
        at = data.index(b"\x2c\0\0\0\0") + 5
        data[at : at + 4] = struct.pack("<HH", 30_000, 30_000)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", 30_000, 30_000)
    elif kind == "WEBP":
        return encode("WEBP", (16_383, 123))
    else:
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", 30_000, 30_000)
    return bytes(data)


BOMBS = {
    **{f"{kind} that names more pixels than are decoded": (lambda kind=kind: name_size(kind)) for kind in FORMATS},
    "PNG whose text unpacks to 100 MB": lambda: write_png(
        8,
        8,
        write_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000))),
        write_chunk(b"IDAT", zlib.compress(bytes(200))),
    ),
    "PNG whose profile unpacks to 100 MB": lambda: write_png(
        8,
        8,
        write_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(100_000_000))),
        write_chunk(b"IDAT", zlib.compress(bytes(200))),
    ),
    "PNG with 10,000 profiles": lambda: repeat("PNG", 33, write_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(10**6)))),
    "PNG with 1,250,000 chunks": lambda: repeat("PNG", 33, write_chunk(b"teXt", b"")),
    "JPEG of 200,000 scans": make_scans,
    "JPEG with 3,750,000 segments": lambda: repeat("JPEG", 2, b"\xff\xe5\0\2"),
    "JPEG with 3,750,000 segments behind its scan": lambda: repeat("JPEG", -2, b"\xff\xe5\0\2"),
    "JPEG whose scan is 0xFF without an end": lambda: cut_scan(encode("JPEG")) + b"\xff" * 15_000_000,
    "JPEG whose scan is 0xFF 0x00 without an end": lambda: cut_scan(encode("JPEG")) + b"\xff\0" * 7_500_000,
    "JPEG with 3,700 pieces of EXIF": lambda: repeat("JPEG", 2, b"\xff\xe1\x0f\xffExif\0\0" + bytes(4087)),
    "GIF with 3,000,000 comments": lambda: repeat("GIF", 13 + 3 * 256, b"\x21\xfe\1x\0"),
    "BMP of 1,400,000 runs": make_runs,
    "PNG with more data than pixels": lambda: write_png(8, 8, write_chunk(b"IDAT", zlib.compress(bytes(100_000_000)))),
    "GIF of 1,000 frames": lambda: make_gif(1000),
    "30,000 × 1 pixels": lambda: encode("PNG", (30_000, 1)),
    "1 × 30,000 pixels": lambda: encode("PNG", (1, 30_000)),
    "JPEG that is a ZIP too": lambda: encode("JPEG") + b"PK\x03\x04" + bytes(100_000) + b"PK\x05\x06" + bytes(18),
    "GIF that is JavaScript too": lambda: b"GIF89a/*" + encode("GIF")[8:] + b"*/=1;alert(1)",
    "PNG in a JPEG's clothes": lambda: encode("JPEG")[:20] + encode("PNG"),
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "TIFF": lambda: encode("TIFF"),
    "EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_do_no_harm(process, connection, tell, name):
    """Small files that decode to large images, and files that are valid in two formats."""
    data = BOMBS[name]()
    send(connection, data)
    before = read_resident(process)
    for _ in range(5):
        status = send(connection, data)
    assert read_resident(process) - before < 32 * 2**20
    if "names more pixels" in name:
        assert status in {413, 422}
    tell("bombs, and files that are valid in two formats: 5xx, over 2 s, or leaked memory", 6, 0)


PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
FORMS = {
    "a form of 10,000 parts": PART * 10_000 + b"\r\n--x--\r\n",
    "a form of 10,000 fields": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 10_000 + b"--x--\r\n",
    "a part with a header of 1 MB": b"--x\r\nX: " + b"y" * 2**20 + PART[5:] + b"\r\n--x--\r\n",
    "a part with 10,000 headers": b"--x\r\n" + b"X: y\r\n" * 10_000 + PART[5:] + b"\r\n--x--\r\n",
    "a field's name of 1 MB": PART.replace(b"file", b"f" * 2**20) + b"\r\n--x--\r\n",
    "a field of 1 MB": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + bytes(2**21) + b"\r\n--x--\r\n",
    "a form without an end": PART + encode("PNG"),
    "only boundaries": b"--x\r\n" * 100_000,
}


@pytest.mark.parametrize("name", list(FORMS))
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_hostile_forms_do_no_harm(process, tell, name, path):
    """Each gets a client error, and the next request is served."""
    connection = process.connect()
    for _ in range(3):
        assert 400 <= send(connection, FORMS[name], "multipart/form-data; boundary=x", path) < 500
    assert send(connection, SEEDS["PNG"]) == 200
    connection.close()
    tell("hostile forms, such as of 10,000 parts or 1 MB headers: 5xx, or over 2 s", 3, 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_generated_requests_do_no_harm(process, tell, mode):
    """Schemathesis generates valid and invalid requests from the OpenAPI document, and finds no 5xx."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{process.port}/openapi.json")
    made = 0
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy(generation_mode=mode)

        @settings(
            max_examples=max(10, EXAMPLES // 8), deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=strategy)
        def run(case: schemathesis.Case) -> None:
            nonlocal made
            made += 1
            started = time.monotonic()
            response = case.call(timeout=10)
            assert response.status_code < 500, response.text
            assert time.monotonic() - started < LONGEST_SECONDS

        with contextlib.suppress(Unsatisfiable):  # a request without parameters can't be invalid
            run()
    assert made > 5
    tell("requests that Schemathesis generates from the OpenAPI document: 5xx, or over 2 s", made, 0)
