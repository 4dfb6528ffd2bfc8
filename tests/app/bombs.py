"""Generates small files that take much memory or time to decode."""

import io
import struct
import zlib

from PIL import Image

from tests.app.pictures import encode, write_chunk


def write_box(kind: bytes, content: bytes) -> bytes:
    """Write a box of an AVIF or HEIC."""
    return struct.pack(">I", len(content) + 8) + kind + content


def read_boxes(data: bytes) -> dict[bytes, bytes]:
    boxes, start = {}, 0
    while start < len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        boxes[kind] = data[start : start + size]
        start += size
    return boxes


def hide_frame(kind: str, side: int = 6000) -> bytes:
    """Make an AVIF or HEIC whose container says 64 x 64 and whose frame is `side` x `side`."""
    data = bytearray(encode(Image.new("L", (side, side), 128), kind, **({"speed": 10} if kind == "AVIF" else {})))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 64, 64)
    return bytes(data)


def refer_to_items(kind: str, count: int = 100_000) -> bytes:
    """Make an AVIF or HEIC with references to `count` items; libraries search the whole table for each."""
    top = read_boxes(encode(Image.new("L", (64, 64), 128), kind))
    meta = read_boxes(top[b"meta"][12:])
    pixels = top[b"mdat"][8:]
    runs = [range(start, min(count, start + 65_535)) for start in range(0, count, 65_535)]
    meta[b"iref"] = write_box(
        b"iref",
        b"\1\0\0\0"
        + b"".join(
            write_box(b"dimg", struct.pack(f">IH{len(run)}I", 4 * 10**9 + run.start, len(run), *(i + 2 for i in run)))
            for run in runs
        ),
    )

    def write_head(offset: int) -> bytes:
        place = struct.pack(">HHHHII", 1, 1, 0, 1, offset, len(pixels))
        meta[b"iloc"] = write_box(b"iloc", bytes([0, 0, 0, 0, 0x44, 0]) + place)
        return top[b"ftyp"] + write_box(b"meta", bytes(4) + b"".join(meta.values()))

    return write_head(len(write_head(0)) + 8) + write_box(b"mdat", pixels)


def make_exif(values: int) -> bytes:
    """Make EXIF whose orientation has `values` values, each a fraction."""
    directory = struct.pack("<HHHIII", 1, 0x0112, 5, values, 26, 0)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<II", 1_000_003, 700_001) * values


def describe_png(values: int = 2_000_000) -> bytes:
    png = encode(Image.new("RGB", (64, 64), "red"), "PNG")
    return png[:33] + write_chunk(b"eXIf", make_exif(values)) + png[33:]


def describe_jpeg(values: int = 2_000_000) -> bytes:
    jpeg, exif = encode(Image.new("RGB", (64, 64), "red"), "JPEG"), make_exif(values)
    size = 65_500
    pieces = [b"Exif\0\0" + exif[start : start + size] for start in range(0, len(exif), size)]
    return jpeg[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(piece) + 2) + piece for piece in pieces) + jpeg[2:]


def repeat_scans(count: int = 200_000) -> bytes:
    """Make a progressive JPEG that repeats its last scan; decoding each one passes over all pixels."""
    data = encode(Image.new("L", (2800, 2000), 128), "JPEG", progressive=True)
    return data[:-2] + b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0\0" * count + data[-2:]


def name_canvas() -> bytes:
    """Make a WebP animation of 64 x 64 whose canvas is 16384 x 16384."""
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:30] = (16_383).to_bytes(3, "little") * 2
    return bytes(data)


def write_runs() -> bytes:
    """Make a BMP of 8000 x 6000 pixels with a run for each pixel, which Pillow decodes in Python."""
    head = struct.pack("<IiiHHIIiiII", 40, 8000, 6000, 1, 8, 1, 0, 0, 0, 2, 2)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 62) + head + bytes(8) + b"\x01\x01" * 7_900_000 + b"\0\x01"


def pack_text() -> bytes:
    """Make a PNG with 10,000 text chunks of a kB, each of which unpacks to a MB."""
    png = encode(Image.new("RGB", (64, 64)), "PNG")
    return png[:33] + write_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6))) * 10_000 + png[33:]


def fill(kind: str, mode: str, size: tuple[int, int], **options: object) -> bytes:
    """Make an image of one colour: few bytes, and any number of pixels."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


LIMIT = 8192, 6144
BOMBS = {
    "AVIF with a large frame": lambda: hide_frame("AVIF"),
    "AVIF of 100,000 items": lambda: refer_to_items("AVIF"),
    "HEIC with a large frame": lambda: hide_frame("HEIF", 4000),
    "HEIC of 100,000 items": lambda: refer_to_items("HEIF"),
    "HEIC of 48 megapixels": lambda: fill("HEIF", "RGB", (8064, 6048)),
    "AVIF at the limit of pixels": lambda: fill("AVIF", "RGB", LIMIT, speed=10),
    "PNG with a million orientations": describe_png,
    "JPEG with a million orientations": describe_jpeg,
    "PNG with 10,000 packed texts": pack_text,
    "PNG at the limit of pixels": lambda: fill("PNG", "RGBA", LIMIT),
    "JPEG of 200,000 scans": repeat_scans,
    "progressive JPEG for print": lambda: fill("JPEG", "CMYK", LIMIT, progressive=True, subsampling=0),
    "WebP with a large canvas": name_canvas,
    "WebP at the limit of pixels": lambda: fill("WEBP", "RGBA", LIMIT, lossless=True, quality=0, method=0),
    "GIF at the limit of pixels": lambda: fill("GIF", "P", LIMIT),
    "BMP of 8,000,000 runs": write_runs,
}
