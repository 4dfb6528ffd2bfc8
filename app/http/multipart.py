"""Parses multipart forms (RFC 7578) from memory with python-multipart. Knows no images.

Mail libraries write what MIME allows and browsers do not send: text before the first boundary, blanks after a boundary,
folded headers, transfer encodings. python-multipart rejects the first three, so `_tidy` removes them.
"""

import binascii
import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from app.errors import MalformedUploadError, UnsupportedUploadError

# A form with images has few other fields.
MAX_FIELDS = 16
_MAX_HEADER_BYTES = 16_384
# How many bytes of a part without a content type to check for text.
_SAMPLE_BYTES = 4096
# A parameter without escapes and encodings, and a header with only such parameters. Nearly all headers are like that.
# The standard library reads every header, but takes longer than the rest of a small form.
_PLAIN_PARAMETER = re.compile(r'; *([a-zA-Z]+)=(?:"([^"\\]*)"|([\w.-]++))')
_PLAIN_HEADER = re.compile(rf"[\w/-]++(?:{_PLAIN_PARAMETER.pattern})*+", re.ASCII)


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
    boundary = _read_boundary(content_type)
    try:
        return _parse(body, boundary, max_files)
    except FormParserError as error:
        try:
            return _parse(_tidy(body, boundary, MAX_FIELDS + max_files + 1), boundary, max_files)
        except FormParserError:  # the first error is about what the client sent
            raise _malformed(str(error)) from error


def _malformed(reason: str) -> MalformedUploadError:
    return MalformedUploadError(f"the form can't be parsed: {reason}")


def _read_boundary(content_type: str) -> bytes:
    boundary = _read_parameters(content_type).get("boundary", "").rstrip()
    if not boundary:
        raise _malformed("its content type names no boundary")
    return boundary.encode("latin-1", "replace")


def _read_parameters(header: str) -> dict[str, str]:
    """Return the parameters of a header, such as `name` in `form-data; name="file"`; of equal ones the first."""
    if _PLAIN_HEADER.fullmatch(header):
        return {name.lower(): quoted or bare for name, quoted, bare in reversed(_PLAIN_PARAMETER.findall(header))}
    message = Message()
    message["Content-Type"] = header
    parameters = reversed(message.get_params([]))
    return {name.lower(): collapse_rfc2231_value(value) for name, value in parameters}


def _tidy(body: bytes, boundary: bytes, max_parts: int) -> bytes:
    """Remove what MIME allows around boundaries and in the first parts' headers, but the parser rejects."""
    delimiter = b"\r\n--" + boundary
    _, *parts = (b"\r\n" + body).split(delimiter, max_parts + 1)
    if not parts:
        raise _malformed("it does not contain the boundary from its content type")
    for index, part in enumerate(parts):
        line, line_end, rest = part.partition(b"\r\n")
        if line_end and not line.strip(b" \t"):
            headers, headers_end, data = rest.partition(b"\r\n\r\n")
            headers = re.sub(rb"\r\n[ \t]+", b" ", headers[:_MAX_HEADER_BYTES]) + headers[_MAX_HEADER_BYTES:]
            parts[index] = line_end + headers + headers_end + data
    return delimiter.join([b"", *parts]).removeprefix(b"\r\n")


def _parse(body: bytes, boundary: bytes, max_files: int) -> list[Part]:
    collector = _Collector(max_files)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": collector.begin,
            "on_header_field": collector.add_name,
            "on_header_value": collector.add_value,
            "on_header_end": collector.end_header,
            "on_part_data": collector.add_data,
            "on_part_end": collector.end,
            "on_end": collector.close,
        },
        max_header_size=_MAX_HEADER_BYTES,
    )
    try:
        parser.write(body)
    except _TooManyFilesError:
        return collector.parts
    if not collector.is_closed:  # its last part may be cut short
        raise _malformed("it ends before its closing boundary")
    return collector.parts


class _TooManyFilesError(Exception):
    """Stops the parser."""


class _Collector:
    """Builds the parts from the parser's callbacks."""

    def __init__(self, max_files: int) -> None:
        self.parts: list[Part] = []
        self.is_closed = False
        self._max_files = max_files
        self._files = 0
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}  # by lower-case names
        self._pieces: list[bytes] = []

    def begin(self) -> None:
        self._headers, self._pieces = {}, []

    def add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        name = self._name.decode(errors="replace").lower()
        self._headers.setdefault(name, self._value.decode(errors="replace"))
        self._name.clear()
        self._value.clear()

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def end(self) -> None:
        part = _make_part(self._headers, b"".join(self._pieces))
        self.parts.append(part)
        self._files += part.is_file
        if self._files > self._max_files:
            raise _TooManyFilesError
        if len(self.parts) - self._files > MAX_FIELDS:
            raise _malformed(f"it has more than {MAX_FIELDS} fields")

    def close(self) -> None:
        self.is_closed = True


def _make_part(headers: Mapping[str, str], data: bytes) -> Part:
    parameters = _read_parameters(headers.get("content-disposition", ""))
    if (name := parameters.get("name")) is None:
        raise _malformed("a part has no name")
    data = _decode(data, headers.get("content-transfer-encoding", ""), name)
    is_file = "filename" in parameters or _holds_file(headers.get("content-type", "").lower(), data)
    return Part(name, is_file, data)


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


def _holds_file(content_type: str, data: bytes) -> bool:
    """Return whether a part without a filename is a file, by its content type, else by its content."""
    if content_type.startswith(("image/", "application/octet-stream")):
        return True
    sample = data[:_SAMPLE_BYTES]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True
    return b"\0" in sample
