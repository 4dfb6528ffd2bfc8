"""The image formats, and which files are simple enough to decode in the service's own process."""

from collections.abc import Iterator

FORMAT_NAMES = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF", "HEIC")
SUFFIXES = frozenset(
    {".apng", ".avif", ".avifs", ".bmp", ".gif", ".heic", ".heif", ".hif"}
    | {".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"}
)
"""Suffixes of image files, to find files in folders. The format is detected from the bytes."""

# A small image in a file with little else takes 0.1 ms to decode.
SIMPLE_BYTES = 4096
SIMPLE_PIXELS = 128 * 128

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# All chunks after the header except eXIf and compressed ones: 4 kB of compressed text can unpack to 4 MB.
_PLAIN_CHUNKS = {
    b"PLTE", b"tRNS", b"IDAT", b"IEND",
    b"bKGD", b"cHRM", b"gAMA", b"pHYs", b"sBIT", b"sRGB", b"tEXt", b"tIME",
}  # fmt: skip
_BASELINE, _START_OF_SCAN = 0xC0, 0xDA
# JFIF, Adobe's colour transform, comments, tables and baseline frames. No EXIF.
_PLAIN_SEGMENTS = {0xE0, 0xEE, 0xFE, 0xDB, 0xC4, 0xDD, _BASELINE}

_JPEG_LS = 0xF7
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {_JPEG_LS}
_BITS = 8
_ADVICE = f"which is not supported; save it as one of: {', '.join(FORMAT_NAMES)}"
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
_UNSUPPORTED = (
    (b"II*\0", "a TIFF or a camera's raw file"),
    (b"MM\0*", "a TIFF or a camera's raw file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\0\0\1\0", "an icon"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF"),
    (b"<svg", "an SVG"),
    (b"PK\3\4", "an archive or a document"),
)


def is_simple(data: bytes) -> bool:
    """Whether a file is a small PNG or baseline JPEG with a small image and without metadata to parse."""
    if len(data) > SIMPLE_BYTES:
        return False
    if data.startswith(PNG):
        header, *others = _list_chunks(data) or [b""]
        return header == b"IHDR" and _is_small(data[16:20], data[20:24]) and _PLAIN_CHUNKS.issuperset(others)
    return data.startswith(JPEG) and _is_baseline(data)


def describe_unsupported(data: bytes) -> str | None:
    """Name the format of a file that is not read, and say what to do; None if the format is unknown or supported."""
    if data.startswith(JPEG):
        return next(
            (_describe_frame(kind, data[start]) for kind, start in _list_segments(data) if kind in _FRAMES), None
        )
    if data[4:8] == b"ftyp":
        if data[8:12] not in _HEIC_BRANDS:
            return None if data[8:10] == b"av" else f"the file is a video or a camera's raw file, {_ADVICE}"
        if b"iinf" not in data or b"hvc1" in data or b"av01" in data:  # truncated or damaged
            return None
        return (
            "the file is a HEIC with a codec that is not supported; export it as JPEG, or set the camera to take JPEG "
            "(iPhone: Settings, Camera, Formats, Most Compatible)"
        )
    return next((f"the file is {what}, {_ADVICE}" for start, what in _UNSUPPORTED if data.startswith(start)), None)


def _describe_frame(kind: int, bits: int) -> str | None:
    if kind == _JPEG_LS:
        return f"the file is a JPEG-LS, {_ADVICE}"
    return f"the file is a JPEG with {bits} bits per sample, {_ADVICE}; a JPEG needs 8" if bits != _BITS else None


def _is_small(width: bytes, height: bytes) -> bool:
    return int.from_bytes(width, "big") * int.from_bytes(height, "big") <= SIMPLE_PIXELS


def _list_chunks(data: bytes) -> list[bytes]:
    names = []
    start = len(PNG)
    while start < len(data):
        names.append(data[start + 4 : start + 8])
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    return names


def _is_baseline(data: bytes) -> bool:
    """Whether a JPEG has plain segments and then one scan."""
    for kind, start in _list_segments(data):
        if kind == _START_OF_SCAN:
            return data.find(b"\xff\xda", start) < 0
        if kind not in _PLAIN_SEGMENTS:
            return False
        if kind == _BASELINE and not _is_small(data[start + 3 : start + 5], data[start + 1 : start + 3]):
            return False
    return False


def _list_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment up to the first scan of a JPEG, and where its content begins."""
    start = 2
    while start + 4 < len(data) and data[start] == 0xFF:  # noqa: PLR2004 - the first byte of a marker
        yield data[start + 1], start + 4
        if data[start + 1] == _START_OF_SCAN:
            return
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
