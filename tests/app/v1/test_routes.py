"""Behaviour of app.v1: requests and answers as documented for TensorFlow Serving's REST API."""

import base64
import gc
import gzip
import json
import re
import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from app.versions.model import Model
from tests.app.client import predict
from tests.app.fakes import encode, make_model, paint, tell_colours, wait_until_loaded

MODEL = "/v1/models/tiny"
PREDICT = f"{MODEL}:predict"
RED, BLUE = paint("red", "blue").tolist()


def as_b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def check_error(response, status: int, code: str) -> str:
    """Check that `response` has the error where TensorFlow Serving's clients expect it; return its text."""
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    error: str = problem["error"]
    assert error == problem["detail"]
    return error


def test_the_status_has_the_fields_of_tensorflow_serving_and_kserve(client):
    """The version that serves, and whether the model is ready."""
    status = {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ],
        "name": "tiny",
        "ready": True,
    }
    assert client.get(MODEL).json() == client.get(f"{MODEL}/versions/1").json() == status
    assert client.get("/v1/models").json() == {"models": ["tiny"]}


def test_the_metadata_is_the_signature(client):
    """In TensorFlow Serving's format: sizes are strings, and -1 is the number of images."""
    metadata = client.get(f"{MODEL}/metadata").json()
    assert metadata == client.get(f"{MODEL}/versions/1/metadata").json()
    assert metadata["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    [(name, tensor)] = signature["inputs"].items()
    assert (name, tensor["dtype"]) == ("images", "DT_UINT8")
    assert [dim["size"] for dim in tensor["tensor_shape"]["dim"]] == ["-1", "8", "6", "3"]
    [(name, tensor)] = signature["outputs"].items()
    assert (name, tensor["dtype"]) == ("probabilities", "DT_FLOAT")
    assert [dim["size"] for dim in tensor["tensor_shape"]["dim"]] == ["-1", "3"]


@pytest.mark.parametrize(
    "request_",
    [
        {"instances": [as_b64(encode("red")), as_b64(encode("blue", kind="JPEG"))]},
        {"instances": [{"images": as_b64(encode("red"))}, {"images": as_b64(encode("blue"))}]},
        {"instances": [RED, BLUE]},
        {"instances": [{"images": RED}, {"images": BLUE}]},
        {"instances": [as_b64(encode("red")), BLUE]},
        {"inputs": [RED, BLUE]},
        {"inputs": {"images": [RED, BLUE]}},
        {"inputs": [as_b64(encode("red")), as_b64(encode("blue"))]},
        {"inputs": {"images": [as_b64(encode("red")), as_b64(encode("blue"))]}},
        {"signature_name": "serving_default", "instances": [RED, BLUE]},
        {"signature_name": "", "instances": [RED, BLUE]},
    ],
)
def test_each_request_format_has_its_answer_format(client, request_):
    """Rows get `predictions`, columns get `outputs`. A single output has no name."""
    reply = client.post(PREDICT, json=request_).json()
    [(name, rows)] = reply.items()
    assert name == ("outputs" if "inputs" in request_ else "predictions")
    assert np.shape(rows) == (2, 3)
    assert np.argmax(rows, axis=1).tolist() == [0, 2]
    assert np.sum(rows, axis=1) == pytest.approx(1)
    assert client.post(f"{MODEL}/versions/1:predict", json=request_).json() == reply


def test_the_probabilities_equal_those_of_the_other_apis(client):
    """Encoded images are decoded in the same way; arrays are pixels."""
    data = encode((200, 50, 0))
    [row] = client.post(PREDICT, json={"instances": [as_b64(data)]}).json()["predictions"]
    expected = {entry["label"]: entry["probability"] for entry in predict(client, data).json()["predictions"]}
    assert dict(zip(("red", "green", "blue"), row, strict=True)) == pytest.approx(expected, abs=1e-6)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), dtype=np.uint8)
    rows = client.post(PREDICT, json={"instances": pixels.tolist()}).json()["predictions"]
    np.testing.assert_array_equal(np.array(rows, np.float32), tell_colours(pixels))


def test_base64_may_have_lines_and_lack_padding(client):
    """MIME encoders and command-line tools write it like that, and TensorFlow Serving accepts it."""
    data = encode("blue") + b"\0"
    lines = base64.encodebytes(data).decode()
    assert lines.endswith("=\n")
    instances = [{"b64": lines}, {"b64": lines.rstrip("=\n")}]
    response = client.post(PREDICT, json={"instances": instances})
    assert [np.argmax(row) for row in response.json()["predictions"]] == [2, 2]


def test_a_compressed_request_is_accepted(client):
    """Like TensorFlow Serving, with gzip and without a content type."""
    body = gzip.compress(json.dumps({"instances": [RED]}).encode())
    response = client.post(PREDICT, content=body, headers={"content-encoding": "gzip"})
    assert len(response.json()["predictions"]) == 1


IMAGE = as_b64(encode())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON"),
        (b"[" * 60_000, "the body is not JSON"),
        (b'{"instances": [NaN]}', "image 0 is neither"),
        (b'{"instances": ["\xff"]}', "the body is not JSON"),
        ([IMAGE], 'either "instances" or "inputs"'),
        ({}, 'either "instances" or "inputs"'),
        ({"instances": [IMAGE], "inputs": [IMAGE]}, 'either "instances" or "inputs"'),
        ({"instances": [IMAGE], "signature_name": "other"}, "requested: 'other'"),
        ({"instances": [IMAGE], "signature_name": []}, "requested: '[]'"),
        ({"instances": []}, "1 to 32 images; sent: a list of 0"),
        ({"instances": [IMAGE] * 33}, "sent: a list of 33"),
        ({"instances": IMAGE}, "sent: dict"),
        ({"instances": "x"}, "sent: str"),
        ({"inputs": {"pixels": [IMAGE]}}, "sent: dict"),
        ({"instances": [{"pixels": RED}]}, "image 0 is neither"),
        ({"instances": [IMAGE, {"b64": 1}]}, "image 1 is neither"),
        ({"instances": [IMAGE, 7]}, "image 1 is neither"),
        ({"instances": [IMAGE["b64"]]}, "image 0 is neither"),
        ({"instances": [{"b64": "!"}]}, "image 0: the base64 is damaged"),
        ({"instances": [{"b64": "é"}]}, "image 0: the base64 is damaged"),
        ({"instances": RED}, "shape [8, 6, 3], of integers from 0 to 255; sent: [6, 3] of int"),
        ({"instances": [[]]}, "sent: [0] of nothing"),
        ({"instances": [[[1], [2, 3]]]}, "sent: [2] of list"),
        (b'{"instances": [' + b"[" * 40 + b"1" + b"]" * 40 + b"]}", "sent: [1, 1, 1, 1, 1, 1, 1, 1] of int"),
        ({"instances": (np.array([RED]) / 255).tolist()}, "sent: [8, 6, 3] of float"),
        ({"instances": [[[[True] * 3] * 6] * 8]}, "of bool"),
        ({"instances": [[[["1"] * 3] * 6] * 8]}, "of str"),
        ({"instances": [[[[256] * 3] * 6] * 8]}, "pixels are integers from 0 to 255"),
        ({"instances": [[[[-1] * 3] * 6] * 8]}, "pixels are integers from 0 to 255"),
    ],
)
def test_an_invalid_request_gets_the_reason(client, body, said):
    """And the number of the invalid image."""
    response = client.post(PREDICT, content=body if isinstance(body, bytes) else json.dumps(body))
    assert said in check_error(response, 400, "wrong_tensor")


@pytest.mark.parametrize("value", ["x" * 100_000, {"x" * 100_000: 1}, {"x" * 100_000 + str(n): 1 for n in range(9)}])
def test_an_error_quotes_little_of_a_request(client, value):
    """However long the request is."""
    response = client.post(PREDICT, json={"instances": [value]})
    assert len(check_error(response, 400, "wrong_tensor")) < 500


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty_upload"),
        (b"a text", 415, "unsupported_image"),
        (encode()[:60], 422, "broken_image"),
        (encode(size=(1001, 1000), kind="JPEG"), 413, "image_too_large"),
    ],
)
def test_a_bad_image_fails_its_request(make_client, data, status, code):
    """With the error that `/predict` gives, and the image's number."""
    client = make_client(max_image_pixels=1_000_000)
    response = client.post(PREDICT, json={"instances": [as_b64(encode()), as_b64(data)]})
    assert check_error(response, status, code).startswith("image 1: ")


def test_a_full_queue_rejects_the_whole_request(make_client):
    """With `Retry-After`."""
    client = make_client(max_queue_size=2)
    with client.app.state.classifier._batcher.admit():
        response = client.post(PREDICT, json={"instances": [RED, BLUE]})
    check_error(response, 429, "queue_full")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["", "/metadata", ":predict"])
@pytest.mark.parametrize("model", ["huge", "tiny/versions/2", "tiny/versions/01"])
def test_another_model_or_version_is_not_found(client, model, path):
    """The error names what serves."""
    url = f"/v1/models/{model}{path}"
    response = client.post(url, json={"instances": [RED]}) if path == ":predict" else client.get(url)
    assert "'tiny' version 1 is" in check_error(response, 404, "unknown_model")


def test_without_a_model_requests_get_503(tmp_path):
    """With `Retry-After`."""
    with TestClient(create_app(Settings(model_dir=tmp_path))) as client:
        assert client.get("/v1/models").json() == {"models": []}
        for response in (client.get(MODEL), client.post(PREDICT, json={"instances": [RED]})):
            check_error(response, 503, "not_ready")
            assert int(response.headers["retry-after"]) > 0


def test_the_memory_of_parsed_numbers_is_limited(client):
    """A parsed value takes about 80 bytes: 16 MB of empty lists would take half a gigabyte."""
    body = b'{"instances": [' + b"[]," * 1_000_000 + b"[]]}"
    tracemalloc.start()
    response = client.post(PREDICT, content=body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "send images as base64" in check_error(response, 413, "upload_too_large")
    assert peak < 5 * len(body)


def test_an_emoji_does_not_multiply_the_memory_of_a_body(client):
    """Python stores each character of a string with an emoji in 4 bytes. That may happen once, not for a copy."""
    body = json.dumps({"instances": ["\N{GRINNING FACE}" + "A" * 1_000_000]}, ensure_ascii=False).encode()
    tracemalloc.start()
    response = client.post(PREDICT, content=body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    check_error(response, 400, "wrong_tensor")
    assert peak < 8 * len(body)


def test_a_request_is_answered_by_one_version(make_client):
    """If another one takes over between its images, all are classified again."""
    seen = []

    def swap(images):
        seen.append(len(images))
        if len(seen) == 1:
            client.app.state.classifier.store._model = make_model(swap, version=2)
        return tell_colours(images)

    client = make_client(swap, max_batch_size=1, inference_threads=1)
    response = client.post(PREDICT, json={"instances": [as_b64(encode("red")), as_b64(encode("blue"))]})
    assert np.argmax(response.json()["predictions"], axis=1).tolist() == [0, 2]
    assert len(seen) == 4
    assert client.post(f"{MODEL}/versions/1:predict", json={"instances": [RED]}).status_code == 404


def test_an_answered_request_keeps_no_model_in_memory(client):
    """So a replaced version is freed."""
    client.post(PREDICT, json={"instances": [RED]})
    store = client.app.state.classifier.store
    former = weakref.ref(store.model)
    store._model = make_model()
    gc.collect()
    assert former() is None


def test_the_documentation_shows_the_protocol(models):
    """Every path. A model with matching images accepts the examples."""
    tiny = make_model()
    takes = tiny.metadata.input.model_copy(update={"shape": (2, 2, 3)})
    model = Model(tiny.metadata.model_copy(update={"input": takes}), replace(tiny.runtime, input=takes))
    with TestClient(create_app(Settings(model_dir=models), load=lambda *_, **__: model)) as client:
        wait_until_loaded(client)
        paths = client.get("/openapi.json").json()["paths"]
        name, version = "/v1/models/{name}", "/v1/models/{name}/versions/{version}"
        assert {path for path in paths if path.startswith("/v1")} == {
            "/v1/models", name, f"{name}/metadata", f"{name}:predict",
            version, f"{version}/metadata", f"{version}:predict",
        }  # fmt: skip
        for path in (f"{name}:predict", f"{version}:predict"):
            assert {parameter["name"] for parameter in paths[path]["post"]["parameters"]} == set(
                re.findall(r"{(\w+)}", path)
            )
            examples = paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"]
            assert len(examples) == 3
            for example in examples.values():
                reply = client.post(path.format(name="tiny", version=1), json=example["value"]).json()
                assert np.argmax(next(iter(reply.values()))[0]) == 0
