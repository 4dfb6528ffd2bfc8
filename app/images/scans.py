"""How often a JPEG goes over its picture, told from its markers. Knows bytes and no decoder."""

import re

from app.errors import BrokenImageError

# Every scan goes over all pixels, however few bytes it has: 80 ms for 50 megapixels, and 16 MB hold 200,000 of them.
# Encoders write one; progressive ones up to 10 for colour and 18 for print (libjpeg's jpeg_simple_progression).
MAX_SCANS = 32
# Those that there are: tables, profiles, descriptions of at most 64 kB each.
MAX_SEGMENTS = 4096

# 0xFF, then what is neither more of it nor a mark without content (0 stands for the 0xFF itself).
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
# What is searched at once, with Python's lock held: 7 ms at most, for what is nothing but 0xFF.
_SLICE_BYTES = 2**17
_START_OF_SCAN, _END_OF_IMAGE = b"\xda", b"\xd9"


def list_scans(data: bytes) -> list[int]:
    """Return how many components each scan of a JPEG has.

    Raises:
        BrokenImageError: it has more scans, or other segments, than any encoder writes.
    """
    scans: list[int] = []
    start = 2  # behind the mark that begins the file
    for _ in range(MAX_SEGMENTS):
        marker = _find_marker(data, start)
        if marker is None or marker[1] == _END_OF_IMAGE:
            return scans
        start = marker.end()
        if marker[1] == _START_OF_SCAN:
            scans += data[start + 2 : start + 3]
            if len(scans) > MAX_SCANS:
                raise BrokenImageError(f"the image has more than {MAX_SCANS} scans; save it anew as PNG or JPEG")
        start += int.from_bytes(data[start : start + 2], "big")
    raise BrokenImageError("the image's file has too many small parts; save it anew as PNG or JPEG")


def _find_marker(data: bytes, start: int) -> re.Match[bytes] | None:
    while start < len(data):
        if marker := _MARKER.search(data, start, start + _SLICE_BYTES):
            return marker
        start += _SLICE_BYTES - 1  # one may lie across the end
    return None
