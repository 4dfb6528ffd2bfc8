"""Behaviour of app.http.uploads as a client sees it: what is taken for an image, and what is told of the rest."""

import pytest

from tests.app.client import check_problem, predict
from tests.app.fakes import encode


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty_upload"),
        (encode()[:60], 422, "broken_image"),
        (b"a text that is called image.png", 415, "unsupported_image"),
        (encode(size=(1001, 1000), kind="JPEG"), 413, "image_too_large"),
    ],
)
def test_bad_images_are_told_apart(make_client, data, status, code):
    """Empty, cut, no image at all, too many pixels: each has its status and its code, as a form and as a body."""
    client = make_client(max_image_pixels=1_000_000)
    check_problem(predict(client, data), status, code)
    check_problem(client.post("/predict", content=data, headers={"content-type": "image/png"}), status, code)
    [result] = client.post("/predict/batch", files=[("files", ("image.png", data))]).json()["results"]
    assert (result["status"], result["code"]) == (status, code)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"files": {"image": ("a.png", encode())}}, "found: 'image'"),
        ({"files": {"image": ("a.png", encode())}, "data": {"note": "x"}}, "'file'"),
        ({"files": {"file": (None, "text")}}, "holds text"),
    ],
)
def test_an_image_in_the_wrong_place_is_refused(client, fields, detail):
    """The error names the fields of the form and the right one."""
    assert detail in check_problem(client.post("/predict", **fields), 422, "wrong_field")


@pytest.mark.parametrize(
    ("field", "stray", "detail"),
    [
        ("files", ("files", (None, "text")), "the field 'files' holds text"),
        ("files", ("file", ("b.png", encode())), "belongs in the field 'files'; found: 'file'"),
        ("file", ("file", (None, "text")), "the field 'file' holds text"),
    ],
)
def test_no_part_is_left_out(client, field, stray, detail):
    """Else the answers would not be those to the files, in their order; text in other fields is none of them."""
    path = "/predict/batch" if field == "files" else "/predict"
    image, note = (field, ("a.png", encode())), ("note", (None, "text"))
    assert client.post(path, files=[note, image, note]).status_code == 200
    for parts in ([image, stray], [stray, image]):
        assert detail in check_problem(client.post(path, files=[note, *parts]), 422, "wrong_field")


def test_a_form_without_fields_is_refused(client):
    """An empty form is a missing field."""
    body = {"content": b"--x--\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}
    for path in ("/predict", "/predict/batch"):
        assert "no field at all" in check_problem(client.post(path, **body), 422, "wrong_field")


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary in here"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; nme="file"\r\n\r\n\r\n--x--\r\n'),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 40 + b"--x--\r\n",
        ),
    ],
)
def test_a_form_that_is_none_is_refused(client, content_type, content):
    """Without a boundary, without names, or with dozens of parts."""
    response = client.post("/predict", content=content, headers={"content-type": content_type})
    assert "can't be parsed" in check_problem(response, 400, "malformed_upload")


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "image/"])
def test_a_body_of_another_kind_is_refused(client, path, content_type):
    """The answer shows how to send an image."""
    headers = {"content-type": content_type}
    assert "curl" in check_problem(client.post(path, content=encode(), headers=headers), 415, "unsupported_upload")


def test_several_images_come_in_a_form(client):
    """A body without a type is one image, so it is none for a batch."""
    response = client.post("/predict/batch", content=encode())
    assert "no content type" in check_problem(response, 415, "unsupported_upload")


@pytest.mark.parametrize("content_type", ["application/octet-stream", "binary/octet-stream", "", None])
def test_a_raw_body_needs_no_type_of_its_own(client, content_type):
    """Many programs send none, or the one for any bytes; the bytes tell the format, or that it is none."""
    headers = {"content-type": content_type} if content_type is not None else {}
    assert client.post("/predict", content=encode("blue"), headers=headers).json()["label"] == "blue"
    check_problem(client.post("/predict", content=b"a text", headers=headers), 415, "unsupported_image")


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_part_needs_no_filename(client, path):
    """As httpx and .NET send it; text in the field is refused as text."""
    field = "files" if path == "/predict/batch" else "file"
    for part in ((None, encode("blue"), "image/png"), (None, encode("blue"))):
        reply = client.post(path, files={field: part}).json()
        assert reply.get("results", [reply])[0]["label"] == "blue"
    detail = check_problem(client.post(path, files={field: (None, "text")}), 422, "wrong_field")
    assert detail.startswith(f"the field '{field}' holds text")


def test_a_body_over_the_limit_is_refused(make_client):
    """By its declared length, or when it has grown too long without one; what fits is taken."""
    client = make_client(max_upload_bytes=20_000)
    headers = {"content-type": "image/png"}
    assert predict(client, encode()).status_code == 200
    for body in (bytes(20_001), (bytes(1000) for _ in range(21))):
        detail = check_problem(client.post("/predict", content=body, headers=headers), 413, "upload_too_large")
        assert "20,000 bytes" in detail
    check_problem(predict(client, bytes(20_000)), 413, "upload_too_large")
    check_problem(client.post("/predict/batch", files=[("files", bytes(20_000))]), 413, "upload_too_large")
