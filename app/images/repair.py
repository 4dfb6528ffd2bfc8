"""Removes harmless damage from files, and detects missing pixels that decoders do not notice.

It knows markers and chunks, but no decoder.
"""

import re
import zlib
from typing import NamedTuple

from app.images.formats import PNG

# After the last byte of a scan: padding bits, as many as libjpeg reads ahead.
FILLER = b"\xff\0" * 10

# Chunks that affect pixels. Like browsers, the service ignores damage in all others.
_CRITICAL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_ANIMATION_CHUNKS = {b"acTL", b"fcTL", b"fdAT"}
_OPTIONAL_CHUNKS = {b"tRNS", b"eXIf"} | _ANIMATION_CHUNKS
_COLOUR_TYPE = slice(25, 26)  # in a PNG
# Possible lengths of tRNS, by colour type: grey, RGB, palette. With alpha, tRNS is not allowed.
_TRANSPARENCY_BYTES = {b"\0": range(2, 3), b"\2": range(6, 7), b"\3": range(1, 257)}

# 0xFF and a marker code with content. 0xFF 0 is a data byte, 0xFF 0xFF is padding.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_SEQUENTIAL = {0xC0, 0xC1}
_FRAMES = _SEQUENTIAL | {0xC2, 0xC9, 0xCA}
_COEFFICIENTS = 64
_ZEROS = bytes(16)
_MANY_ZEROS = 1024


def strip_png(data: bytes) -> bytes:
    """Remove the chunks that do not affect the first frame, and optional chunks that are damaged."""
    lengths = _TRANSPARENCY_BYTES.get(data[_COLOUR_TYPE], range(0))
    kept = [(b"", PNG)]
    start = len(PNG)
    has_pixels = False
    needs_animation: bool | None = None  # False if IDAT is the animation's first frame
    while start < len(data):
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        end = start + 12 + size
        has_pixels |= kind == b"IDAT"
        if kind == b"fcTL" and needs_animation is None:
            needs_animation = has_pixels
        if kind in _CRITICAL_CHUNKS or (
            kind in _OPTIONAL_CHUNKS and _is_sound(data[start + 4 : end]) and (kind != b"tRNS" or size in lengths)
        ):
            kept.append((kind, data[start:end]))
        start = end
    return b"".join(chunk for kind, chunk in kept if needs_animation or kind not in _ANIMATION_CHUNKS)


def _is_sound(chunk: bytes) -> bool:
    return zlib.crc32(chunk[:-4]) == int.from_bytes(chunk[-4:], "big")


class Scans(NamedTuple):
    """What the markers of a JPEG say about its scans."""

    has_one: bool  # with all components, so rows are complete as soon as their bytes are read
    are_all: bool  # they have all bits of all coefficients of each component
    end: int  # of the last scan's bytes


def find_scans(data: bytes) -> Scans:
    """Find the scans of a JPEG, up to its end marker or the end of the file."""
    missing: dict[int, set[int]] = {}  # coefficients, by component
    first: bool | None = None
    frame, start = 0, 2
    while marker := _MARKER.search(data, start):
        kind, start = marker[1][0], marker.end()
        if kind == _END_OF_IMAGE:
            return Scans(bool(first), not any(missing.values()), _strip(data, marker.start()))
        length = int.from_bytes(data[start : start + 2], "big")
        segment = data[start + 2 : start + length]
        if kind in _FRAMES and len(segment) > 5:  # noqa: PLR2004 - precision, height, width, count, components
            frame, missing = kind, {component: set(range(_COEFFICIENTS)) for component in segment[6::3]}
        elif kind == _START_OF_SCAN and len(segment) > 3:  # noqa: PLR2004 - count, components, spectral selection and bits
            components = segment[1:-3:2]
            if first is None:
                first = frame in _SEQUENTIAL and len(components) == len(missing)
            if not segment[-1] & 0x0F:  # with the last bit
                for component in components:
                    missing.get(component, set()).difference_update(range(segment[-3], segment[-2] + 1))
        start += length
    return Scans(bool(first), not any(missing.values()), _strip(data, len(data)))


def _strip(data: bytes, end: int) -> int:
    """Return where the zeros at the end begin; interrupted transfers leave them."""
    return len(data[:end].rstrip(b"\0")) if data.endswith(_ZEROS, 0, end) else end


def is_zeroed(data: bytes) -> bool:
    """Whether at least a quarter of a WebP, AVIF or HEIC is zeros at its end, as interrupted transfers leave it."""
    if not (data[8:12] == b"WEBP" or data[4:8] == b"ftyp") or not data.endswith(bytes(_MANY_ZEROS)):
        return False
    return len(data.rstrip(b"\0")) < len(data) * 3 // 4


def find_frame(data: bytes) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom of the first frame of an animated WebP; None for other files."""
    if data[8:16] != b"WEBPVP8X" or (start := data.find(b"ANMF", 30)) < 0:
        return None
    left, top, width, height = (int.from_bytes(data[at : at + 3], "little") for at in range(start + 8, start + 20, 3))
    return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
