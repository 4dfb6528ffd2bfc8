"""Multipart forms, read into memory: python-multipart tells of their parts, and this keeps what they hold.

Starlette's own reader gives every file a temporary file, and the event loop a turn for every piece of it; what is
classified here is in memory a moment later anyway, and `app.http.middleware.BodyLimit` bounds it. Knows no images.
"""

from collections.abc import AsyncIterable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import MalformedUploadError, UploadCountError

# A form may carry a few things besides its images; a thousand is an attack.
MAX_FIELDS = 16


@dataclass
class Part:
    """One field of a form: its name, whether it is a file, and what it holds."""

    name: str = ""
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)


async def read_form(content_type: str, body: AsyncIterable[bytes], *, max_files: int, too_many: str) -> list[Part]:
    """Read a `multipart/form-data` body.

    Args:
        content_type: the header, which names the boundary.
        body: the body, in pieces of any size.
        max_files: the most files that are taken, whatever their fields.
        too_many: what to tell those who send more.

    Raises:
        UploadCountError: it has more files.
        MalformedUploadError: it can't be parsed, or has more fields than a form has.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedUploadError("the multipart body can't be parsed: its content type names no boundary")
    form = _Form(max_files, too_many)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin,
                "on_header_field": form.add_header_name,
                "on_header_value": form.add_header_value,
                "on_header_end": form.end_header,
                "on_headers_finished": form.name_part,
                "on_part_data": form.add_data,
                "on_part_end": form.end,
                "on_end": form.close,
            },
        )
        async for piece in body:
            parser.write(piece)
    except FormParserError as error:
        raise MalformedUploadError(f"the multipart body can't be parsed: {error}") from error
    if not form.closed:  # else its last part would be missing, and nobody would know
        raise MalformedUploadError("the multipart body can't be parsed: it ends before its closing boundary")
    return form.parts


class _Form:
    """What python-multipart tells, part by part."""

    def __init__(self, max_files: int, too_many: str) -> None:
        self.parts: list[Part] = []
        self.closed = False
        self._max_files, self._too_many = max_files, too_many
        self._files = self._fields = 0
        self._part = Part()
        self._header, self._value, self._disposition = b"", b"", b""

    def begin(self) -> None:
        self._part, self._disposition = Part(), b""

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def name_part(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise MalformedUploadError("the multipart body can't be parsed: a part has no name")
        self._part.name = options[b"name"].decode(errors="replace")
        self._part.is_file = b"filename" in options
        self._files += self._part.is_file
        self._fields += not self._part.is_file
        if self._files > self._max_files:
            raise UploadCountError(self._too_many)
        if self._fields > MAX_FIELDS:
            raise MalformedUploadError(f"the multipart body can't be parsed: it has more than {MAX_FIELDS} fields")

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._part.data += data[start:end]

    def end(self) -> None:
        self.parts.append(self._part)

    def close(self) -> None:
        self.closed = True
