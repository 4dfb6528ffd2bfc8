"""Behaviour of app.http.multipart."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import MalformedUploadError, UploadCountError
from app.http.multipart import MAX_FIELDS, Part, read_form

TYPE = 'multipart/form-data; boundary="x y"'
BODY = (
    b'--x y\r\nContent-Disposition: form-data; name="note"\r\n\r\nsome text\r\n'
    b'--x y\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b"\x89PNG\r\n\x1a\n\r\n--x z\r\n--x\r\n"
    b"\r\n--x y--\r\n"
)  # fmt: skip


def read(body: bytes, size: int = 1000, max_files: int = 1) -> list[Part]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return asyncio.run(read_form(TYPE, pieces(), max_files=max_files, too_many="fewer, please"))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pieces_of_any_size_give_the_same_form(size):
    """Names, kinds and contents, with line ends and half a boundary in them."""
    note, file = read(BODY, size)
    assert (note.name, note.is_file, note.data) == ("note", False, b"some text")
    assert (file.name, file.is_file, file.data) == ("file", True, b"\x89PNG\r\n\x1a\n\r\n--x z\r\n--x\r\n")


@pytest.mark.parametrize("cut", [2, 3, 4, 10, 60])
def test_a_form_that_is_cut_short_is_refused(cut):
    """Without its closing boundary nobody knows whether its last file is whole, or even there."""
    with pytest.raises(MalformedUploadError, match="closing boundary"):
        read(BODY[: -2 - cut])


def test_too_much_of_anything_is_refused():
    """A second file where one is taken, and more fields than a form has."""
    file, field = (
        b'--x y\r\nContent-Disposition: form-data; name="a"%s\r\n\r\n\r\n' % end for end in (b"; filename=b", b"")
    )
    with pytest.raises(UploadCountError, match="fewer, please"):
        read(2 * file + b"--x y--\r\n")
    assert len(read(2 * file + b"--x y--\r\n", max_files=2)) == 2
    assert len(read(MAX_FIELDS * field + b"--x y--\r\n")) == MAX_FIELDS
    with pytest.raises(MalformedUploadError, match="fields"):
        read((MAX_FIELDS + 1) * field + b"--x y--\r\n")
