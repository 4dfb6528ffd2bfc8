"""Behaviour of app.http.uploads as clients see it: which bodies are images, and the errors for others."""

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
def test_each_kind_of_bad_image_has_its_code(make_client, data, status, code):
    """Empty, cut short, not an image, too many pixels; in a form and as a body."""
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
def test_an_image_in_the_wrong_field_is_refused(client, fields, detail):
    """The error names the field and the right one."""
    assert detail in check_problem(client.post("/predict", **fields), 422, "wrong_field")


@pytest.mark.parametrize(
    ("field", "stray", "detail"),
    [
        ("files", ("files", (None, "text")), "the field 'files' holds text"),
        ("files", ("file", ("b.png", encode())), "belongs in the field 'files'; found: 'file'"),
        ("file", ("file", (None, "text")), "the field 'file' holds text"),
    ],
)
def test_a_misplaced_part_is_not_ignored(client, field, stray, detail):
    """Otherwise results would not match the files by position. Text in other fields is ignored."""
    path = "/predict/batch" if field == "files" else "/predict"
    image, note = (field, ("a.png", encode())), ("note", (None, "text"))
    assert client.post(path, files=[note, image, note]).status_code == 200
    for parts in ([image, stray], [stray, image]):
        assert detail in check_problem(client.post(path, files=[note, *parts]), 422, "wrong_field")


def test_a_form_without_fields_is_refused(client):
    """As a missing field."""
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
def test_a_malformed_form_is_refused(client, content_type, content):
    """Without a boundary, without names, or with dozens of parts."""
    response = client.post("/predict", content=content, headers={"content-type": content_type})
    assert "can't be parsed" in check_problem(response, 400, "malformed_upload")


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "image/"])
def test_a_body_of_another_type_is_refused(client, path, content_type):
    """The error shows how to send an image."""
    headers = {"content-type": content_type}
    assert "curl" in check_problem(client.post(path, content=encode(), headers=headers), 415, "unsupported_upload")


def test_a_batch_must_be_a_form(client):
    """A raw body is only one image."""
    response = client.post("/predict/batch", content=encode())
    assert "no content type" in check_problem(response, 415, "unsupported_upload")


@pytest.mark.parametrize("content_type", ["application/octet-stream", "binary/octet-stream", "", None])
def test_a_raw_body_needs_no_content_type(client, content_type):
    """Or has a generic one. The bytes decide the format."""
    headers = {"content-type": content_type} if content_type is not None else {}
    assert client.post("/predict", content=encode("blue"), headers=headers).json()["label"] == "blue"
    check_problem(client.post("/predict", content=b"a text", headers=headers), 415, "unsupported_image")


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_part_needs_no_filename(client, path):
    """As sent by httpx and .NET. Text in the field is refused as text."""
    field = "files" if path == "/predict/batch" else "file"
    for part in ((None, encode("blue"), "image/png"), (None, encode("blue"))):
        reply = client.post(path, files={field: part}).json()
        assert reply.get("results", [reply])[0]["label"] == "blue"
    detail = check_problem(client.post(path, files={field: (None, "text")}), 422, "wrong_field")
    assert detail.startswith(f"the field '{field}' holds text")


def test_a_body_above_the_limit_is_refused(make_client):
    """By its declared length, or once it grows above the limit."""
    client = make_client(max_upload_bytes=20_000)
    headers = {"content-type": "image/png"}
    assert predict(client, encode()).status_code == 200
    for body in (bytes(20_001), (bytes(1000) for _ in range(21))):
        detail = check_problem(client.post("/predict", content=body, headers=headers), 413, "upload_too_large")
        assert "20,000 bytes" in detail
    check_problem(predict(client, bytes(20_000)), 413, "upload_too_large")
    check_problem(client.post("/predict/batch", files=[("files", bytes(20_000))]), 413, "upload_too_large")
