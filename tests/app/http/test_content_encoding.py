"""Behaviour of app.http.content_encoding as clients see it."""

import gzip
import zlib

import pytest

from tests.app.client import check_problem
from tests.app.fakes import encode
from tests.app.v2.inference import ONE, infer

PATHS = ["/predict", "/predict/batch", "/v2/models/tiny/infer"]
PNG = {"content-type": "image/png"}


def deflate(data: bytes) -> bytes:
    """Compress without zlib's header and checksum, as some clients do (RFC 9110, section 8.4.1.2)."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress), ("deflate", deflate)],
)
def test_a_compressed_body_is_decompressed(client, encoding, pack):
    """A raw image, a form and JSON, with a length or chunked."""
    headers = PNG | {"content-encoding": encoding}
    packed = pack(encode("blue", (300, 300), "BMP"))
    assert len(packed) < 5000
    for body in (packed, (packed[i : i + 7] for i in range(0, len(packed), 7))):
        assert client.post("/predict", content=body, headers=headers).json()["label"] == "blue"
    form = client.build_request("POST", "/predict", files={"file": encode("green")})
    headers = {"content-type": form.headers["content-type"], "content-encoding": encoding}
    assert client.post("/predict", content=pack(form.read()), headers=headers).json()["label"] == "green"
    assert infer(client, pack(infer(client, ONE).request.content), **{"content-encoding": encoding}).status_code == 200


def test_identity_is_accepted(client):
    """It means that the body is not compressed."""
    response = client.post("/predict", content=encode("red"), headers=PNG | {"content-encoding": "identity"})
    assert response.json()["label"] == "red"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "aes128gcm"])
def test_an_unsupported_encoding_is_refused(client, path, encoding):
    """The error names it and the supported ones, instead of calling the body damaged."""
    headers = {"content-type": "multipart/form-data; boundary=x", "content-encoding": encoding}
    response = client.post(path, content=b"x", headers=headers)
    detail = check_problem(response, 415, "unsupported_upload")
    assert detail == f"Content-Encoding: {encoding} is not supported; send the body as it is, or with gzip or deflate"
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("body", [b"", b"no gzip", gzip.compress(encode())[:-1], gzip.compress(encode()) + b"x"])
def test_a_damaged_body_is_refused(client, body):
    """Empty, not compressed, cut short, or followed by other bytes."""
    response = client.post("/predict", content=body, headers=PNG | {"content-encoding": "gzip"})
    assert "can't be unpacked" in check_problem(response, 400, "malformed_upload")


@pytest.mark.parametrize("path", PATHS)
def test_the_size_limit_applies_to_the_decompressed_body(make_client, path):
    """Decompression of a bomb stops at the limit."""
    client = make_client(max_upload_bytes=100_000)
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(1024)) + packer.flush()
    bombs = iter([bomb[i : i + 1000] for i in range(0, len(bomb), 1000)])
    headers = {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"}
    response = client.post(path, content=bombs, headers=headers)
    assert "100,000 bytes" in check_problem(response, 413, "upload_too_large")
    exact = gzip.compress(encode("blue") + bytes(100_000 - len(encode("blue"))))
    assert client.post("/predict", content=exact, headers=PNG | {"content-encoding": "gzip"}).status_code == 200
    longer = gzip.compress(encode("blue") + bytes(100_001 - len(encode("blue"))))
    response = client.post("/predict", content=longer, headers=PNG | {"content-encoding": "gzip"})
    check_problem(response, 413, "upload_too_large")
