"""Behaviour of app.http.multipart."""

import base64

import pytest

from app.errors import MalformedUploadError, UnsupportedUploadError
from app.http.multipart import MAX_FIELDS, Part, parse_form
from tests.app.fakes import encode

TYPE = 'multipart/form-data; boundary="x y"'
PNG = encode()
FILE = b'--x y\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n\x89PNG\r\n--x y--\r\n'


def parse(body: bytes, max_files: int = 1) -> list[Part]:
    return parse_form(TYPE, body, max_files=max_files)


def write_part(headers: bytes, data: bytes = PNG) -> bytes:
    return b"--x y\r\n" + headers + b"\r\n\r\n" + data + b"\r\n--x y--\r\n"


def test_a_form_is_parsed_into_parts():
    """Names, kinds and contents, which may contain line ends and parts of the boundary."""
    note, file = parse(
        b'--x y\r\nContent-Disposition: form-data; name="note"\r\n\r\nsome text\r\n'
        b'--x y\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        b"\x89PNG\r\n\x1a\n\r\n--x z\r\n--x\r\n"
        b"\r\n--x y--\r\n"
    )
    assert note == Part("note", is_file=False, data=b"some text")
    assert file == Part("file", is_file=True, data=b"\x89PNG\r\n\x1a\n\r\n--x z\r\n--x\r\n")


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (b'name="file"', "file"),
        (b"name=file", "file"),
        (b'NAME="file"; size=3', "file"),
        (b'name="a;b= c"', "a;b= c"),
        ('name="ä"'.encode(), "ä"),
        (b'name="first"; name="second"', "first"),
        (rb'name="a \"quoted\" \\ name"', 'a "quoted" \\ name'),
        (b"name*=utf-8''%e7%8c%ab", "猫"),
        (b'name = "file" ; filename=a', "file"),
    ],
)
def test_a_part_has_the_name_in_its_header(parameters, name):
    """Quoted, bare, escaped or encoded; of two the first."""
    [part] = parse(write_part(b"Content-Type: image/png\r\nContent-Disposition: form-data; " + parameters))
    assert part == Part(name, is_file=True, data=PNG)


@pytest.mark.parametrize(
    "headers",
    [
        b'Content-Disposition: form-data; name="file"; filename=""',
        b"Content-Disposition: form-data; name=file; filename*=utf-8''%e7%8c%ab.png",
        b'Content-Disposition: form-data; name="file"\r\nContent-Type: image/png',
        b'Content-Disposition: form-data; name="file"\r\nContent-Type: application/octet-stream',
        b'Content-Disposition: form-data; name="file"',
        b'Content-Disposition: form-data;\r\n name="file";\r\n\tfilename="a.png"\r\nContent-Type: image/png',
        b"Content-Type: image/png\r\nCONTENT-DISPOSITION: form-data ; NAME = file",
        b"Content-Disposition: form-data; name*=utf-8''file",
    ],
)
def test_a_file_is_recognized_by_filename_type_or_content(headers):
    """RFC 7578 makes a filename and a type optional. MIME allows headers in any order, and folded."""
    assert parse(write_part(headers)) == [Part("file", is_file=True, data=PNG)]


@pytest.mark.parametrize(
    ("headers", "data"),
    [
        (b"", b"cat.png"),
        (b"", b""),
        (b"", "Kätzchen".encode() * 1000),
        (b"\r\nContent-Type: application/json", b'{"a": 1}'),
        (b"\r\nContent-Type: text/plain; charset=utf-8", b"a note"),
    ],
)
def test_text_without_a_filename_is_not_a_file(headers, data):
    """Whatever its content type."""
    [part] = parse(write_part(b'Content-Disposition: form-data; name="file"' + headers, data))
    assert part == Part("file", is_file=False, data=data)


def test_text_around_the_parts_is_skipped():
    """MIME's preamble and epilogue, and blanks after a boundary."""
    expected = parse(FILE)
    assert parse(b"This is a message in MIME format.\r\n--x\r\n\r\n" + FILE + b"\r\nThe end. --x y\r\n") == expected
    assert parse(FILE.replace(b"--x y\r\n", b"--x y \t \r\n", 1)) == expected


@pytest.mark.parametrize(
    ("encoding", "write"),
    [
        (b"base64", base64.encodebytes),
        (b"BASE64 ", base64.b64encode),
        (b"binary", bytes),
        (b"8bit", bytes),
        (b"quoted-printable", lambda data: b"".join(b"=%02X" % byte for byte in data)),
    ],
)
def test_a_transfer_encoding_is_decoded(encoding, write):
    """Mail libraries use them for files."""
    headers = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Transfer-Encoding: ' + encoding
    [part] = parse(write_part(headers, write(PNG)))
    assert part.data == PNG


def test_an_unknown_transfer_encoding_is_refused():
    """And damaged base64 is reported as such, not as a broken image."""
    headers = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Transfer-Encoding: '
    with pytest.raises(UnsupportedUploadError, match="Content-Transfer-Encoding: x-uuencode"):
        parse(write_part(headers + b"x-uuencode"))
    with pytest.raises(MalformedUploadError, match="base64 of the field 'file' is damaged"):
        parse(write_part(headers + b"base64", b"abcde"))


@pytest.mark.parametrize("cut", [2, 3, 4, 8])
def test_a_form_that_is_cut_short_is_refused(cut):
    """Without its closing boundary, its last file may be incomplete."""
    with pytest.raises(MalformedUploadError, match="closing boundary"):
        parse(FILE[: -2 - cut])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "closing boundary"),
        (b"a --x y\r\n", "it does not contain the boundary from its content type"),
        (b"--x y", "closing boundary"),
        (b"--x yz\r\n", "boundary"),
        (b"--x y\r\n\r\n\r\n--x y--", "a part has no name"),
        (b"--x y\r\n--x y--", "header"),
        (write_part(b"nonsense"), "invalid character"),
        (write_part(b'Content-Disposition: form-data; nme="file"'), "a part has no name"),
        (write_part(b'Content-Disposition: form-data; name="file"; x=' + b"x" * 20_000), "header size"),
    ],
)
def test_a_malformed_form_is_refused(body, said):
    """The error gives the reason."""
    with pytest.raises(MalformedUploadError, match=said):
        parse(body)


def test_the_numbers_of_files_and_fields_are_limited():
    """Parsing stops after the first file too many."""
    file, field = (
        b'--x y\r\nContent-Disposition: form-data; name="a"%s\r\n\r\n\r\n' % end for end in (b"; filename=b", b"")
    )
    assert len(parse(9 * file + b"--x y--\r\n", max_files=2)) == 3
    assert len(parse(MAX_FIELDS * field + b"--x y--\r\n")) == MAX_FIELDS
    with pytest.raises(MalformedUploadError, match="fields"):
        parse((MAX_FIELDS + 1) * field + b"--x y--\r\n")
