"""The image formats, and which files are simple enough to decode in the service's own process."""

FORMAT_NAMES = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF")
SUFFIXES = frozenset({".apng", ".avif", ".avifs", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"})
"""Suffixes of image files, to find files in folders. The format is detected from the bytes."""

# A small image in a file with little else takes 0.1 ms to decode.
SIMPLE_BYTES = 4096
SIMPLE_PIXELS = 128 * 128

_PNG = b"\x89PNG\r\n\x1a\n"
# All chunks after the header except eXIf and compressed ones: 4 kB of compressed text can unpack to 4 MB.
_PLAIN_CHUNKS = {
    b"PLTE", b"tRNS", b"IDAT", b"IEND",
    b"bKGD", b"cHRM", b"gAMA", b"pHYs", b"sBIT", b"sRGB", b"tEXt", b"tIME",
}  # fmt: skip
_START_OF_FRAME, _START_OF_SCAN = 0xC0, 0xDA
# JFIF, Adobe's colour transform, comments, tables and baseline frames. No EXIF.
_PLAIN_SEGMENTS = {0xE0, 0xEE, 0xFE, 0xDB, 0xC4, 0xDD, _START_OF_FRAME}


def is_simple(data: bytes) -> bool:
    """Whether a file is a small PNG or baseline JPEG with a small image and without metadata to parse."""
    if len(data) > SIMPLE_BYTES:
        return False
    if data.startswith(_PNG):
        header, *others = _list_chunks(data) or [b""]
        return header == b"IHDR" and _is_small(data[16:20], data[20:24]) and _PLAIN_CHUNKS.issuperset(others)
    return data.startswith(b"\xff\xd8") and _is_baseline(data)


def _is_small(width: bytes, height: bytes) -> bool:
    return int.from_bytes(width, "big") * int.from_bytes(height, "big") <= SIMPLE_PIXELS


def _list_chunks(data: bytes) -> list[bytes]:
    names = []
    start = len(_PNG)
    while start < len(data):
        names.append(data[start + 4 : start + 8])
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    return names


def _is_baseline(data: bytes) -> bool:
    """Whether a JPEG has plain segments and then one scan."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:  # noqa: PLR2004 - the first byte of a marker
        marker = data[start + 1]
        if marker == _START_OF_SCAN:
            return data.find(b"\xff\xda", start + 2) < 0
        if marker not in _PLAIN_SEGMENTS:
            return False
        if marker == _START_OF_FRAME and not _is_small(data[start + 7 : start + 9], data[start + 5 : start + 7]):
            return False
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return False
