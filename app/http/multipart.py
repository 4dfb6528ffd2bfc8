"""Parses multipart forms (RFC 7578) from memory.

Mail libraries send more of MIME than browsers do: text before the first boundary, spaces after a boundary, folded
headers, transfer encodings. The standard library's `email` package parses the headers of each part. It could parse
the whole form, but goes line by line, which takes too long for photos. Knows no images.
"""

import binascii
import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value

from app.errors import MalformedUploadError, UnsupportedUploadError

# A form with images has few other fields.
MAX_FIELDS = 16
_MAX_HEADER_BYTES = 16_384
# The bytes of a part without a content type that are inspected to distinguish text from a file.
_SAMPLE_BYTES = 4096


@dataclass(frozen=True)
class Part:
    """One part of a form: its name, whether it is a file, and its content."""

    name: str
    is_file: bool
    data: bytes


def parse_form(content_type: str, body: bytes, *, max_files: int) -> list[Part]:
    """Parse a `multipart/form-data` body.

    Args:
        content_type: the Content-Type header, which names the boundary.
        body: the whole body.
        max_files: parsing stops at the first file above this number, which is still returned.

    Raises:
        MalformedUploadError: the body can't be parsed, or has more than `MAX_FIELDS` fields that are not files.
        UnsupportedUploadError: a part has an unknown transfer encoding.
    """
    parts: list[Part] = []
    files = 0
    for start, end in _find_parts(body, _read_boundary(content_type)):
        part = _parse_part(body, start, end)
        parts.append(part)
        files += part.is_file
        if files > max_files:
            break
        if len(parts) - files > MAX_FIELDS:
            raise _malformed(f"it has more than {MAX_FIELDS} fields")
    return parts


def _malformed(reason: str) -> MalformedUploadError:
    return MalformedUploadError(f"the form can't be parsed: {reason}")


def _read_boundary(content_type: str) -> bytes:
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary("")
    if not boundary:
        raise _malformed("its content type names no boundary")
    return boundary.encode("latin-1", "replace")


def _find_parts(body: bytes, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each part starts and ends, headers included (RFC 2046, 5.1.1)."""
    delimiter = b"\r\n--" + boundary
    found = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)
    if found == -1:
        raise _malformed("the boundary that its content type names is not in it")
    while True:
        after = found + len(delimiter)
        if body.startswith(b"--", after):
            return
        line_end = body.find(b"\r\n", after)
        if line_end == -1:
            break
        if body[after:line_end].strip(b" \t"):
            raise _malformed("one of its lines starts like a boundary and goes on")
        found = body.find(delimiter, line_end)
        if found == -1:
            break
        yield line_end + 2, found
    raise _malformed("it ends before its closing boundary")  # its last part may be cut short


def _parse_part(body: bytes, start: int, end: int) -> Part:
    header_end = body.find(b"\r\n\r\n", start - 2, min(end, start + _MAX_HEADER_BYTES))
    if header_end == -1:
        raise _malformed("the headers of a part are missing, too long or not closed")
    headers = HeaderParser().parsestr(body[start:header_end].decode(errors="replace"))
    name = headers.get_param("name", header="content-disposition")
    if name is None:
        raise _malformed("a part has no name")
    name = collapse_rfc2231_value(name)
    data = _decode(body[header_end + 4 : end], headers.get("content-transfer-encoding", ""), name)
    return Part(name, _is_file(headers, data), data)


def _decode(data: bytes, encoding: str, name: str) -> bytes:
    match encoding.strip().lower():
        case "" | "7bit" | "8bit" | "binary":
            return data
        case "base64":
            try:
                return binascii.a2b_base64(data)
            except binascii.Error as error:
                raise _malformed(f"the base64 of the field {name[:50]!r} is damaged") from error
        case "quoted-printable":
            return binascii.a2b_qp(data)
    raise UnsupportedUploadError(
        f"send the field {name[:50]!r} as it is, without Content-Transfer-Encoding: {encoding[:50]}"
    )


def _is_file(headers: Message, data: bytes) -> bool:
    """Tell a file from a text: by its filename, its declared type, or its content, since both may be absent."""
    if headers.get_param("filename", header="content-disposition") is not None:
        return True
    content_type = str(headers.get("content-type", "")).lower()
    if content_type.startswith(("image/", "application/octet-stream")):
        return True
    sample = data[:_SAMPLE_BYTES]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True
    return b"\0" in sample
