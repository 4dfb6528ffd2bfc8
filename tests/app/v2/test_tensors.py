"""Behaviour of app.v2.tensors: the tensors that a request may contain."""

import json
import tracemalloc

import numpy as np
import pytest

from tests.app.fakes import paint, tell_colours
from tests.app.v2.inference import ONE, infer, write_request


def test_nested_data_are_accepted(client):
    """The protocol allows nested rows as well as one flat list."""
    images = paint("green", "red")
    response = infer(client, write_request(images, data=images.tolist()))
    assert response.headers["content-type"] == "application/json"
    (output,) = response.json()["outputs"]
    assert output["shape"] == [2, 3]
    np.testing.assert_allclose(np.reshape(output["data"], (2, 3)), tell_colours(images))
    assert "id" not in response.json()


def test_null_means_absent(client):
    """Some serializers write it for missing fields."""
    tensor, output = TENSOR | {"parameters": None}, {"name": "probabilities", "parameters": None}
    for outputs in (None, [output]):
        body = {"id": None, "parameters": None, "inputs": [tensor], "outputs": outputs}
        assert infer(client, body).json() == infer(client, ONE).json()
    head = json.dumps({"inputs": [tensor | {"data": None}]}).encode()
    response = infer(client, head + bytes(144), **{"inference-header-content-length": str(len(head))})
    assert "binary_data_size says None" in response.json()["detail"]


def nest(depth: int) -> list:
    return [nest(depth - 1)] if depth else [1]


TENSOR = ONE["inputs"][0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not an inference request"),
        (b"[" * 100_000, "the body is not an inference request"),
        (b'{"inputs": [{"name": "images"}]}', "the request's 'inputs.0.datatype': Field required"),
        ({"inputs": [TENSOR | {"parameters": 1}]}, "the request's 'inputs.0.parameters': Input should be"),
        ({"inputs": []}, "sent: none"),
        ({"inputs": [TENSOR, TENSOR]}, "sent: 'images', 'images'"),
        ({"inputs": [TENSOR | {"name": "x"}]}, "one input, 'images'; sent: 'x'"),
        ({"inputs": [TENSOR | {"datatype": "FP32"}]}, "sent: FP32 [1, 8, 6, 3]"),
        ({"inputs": [TENSOR | {"shape": [1, 6, 8, 3]}]}, "sent: UINT8 [1, 6, 8, 3]"),
        ({"inputs": [TENSOR | {"shape": [0, 8, 6, 3]}]}, "[1 to 32, 8, 6, 3]"),
        ({"inputs": [TENSOR | {"shape": [10**9, 8, 6, 3]}]}, "[1 to 32, 8, 6, 3]"),
        ({"inputs": [TENSOR | {"shape": []}]}, "sent: UINT8 []"),
        ({"inputs": [TENSOR | {"data": None}]}, "neither 'data' nor bytes"),
        ({"inputs": [TENSOR | {"data": [1, 2]}]}, "needs 144 integers; its data has 2 of int"),
        ({"inputs": [TENSOR | {"data": [[1], [2, 3]]}]}, "2 of list"),
        ({"inputs": [TENSOR | {"data": [0.5] * 144}]}, "144 of float"),
        ({"inputs": [TENSOR | {"data": [True] * 144}]}, "144 of bool"),
        ({"inputs": [TENSOR | {"data": ["a"] * 144}]}, "144 of str"),
        ({"inputs": [TENSOR | {"data": [1.0] + [1] * 143}]}, "144 of float and int"),
        ({"inputs": [TENSOR | {"data": [[1, "a"]] * 72}]}, "144 of int and str"),
        ({"inputs": [TENSOR | {"data": []}]}, "0 of nothing"),
        ({"inputs": [TENSOR | {"data": [None] * 144}]}, "144 of NoneType"),
        ({"inputs": [TENSOR | {"data": nest(40)}]}, "1 of int"),
        ({"inputs": [TENSOR | {"data": nest(100)}]}, "needs 144 integers"),
        ({"inputs": [TENSOR | {"data": [-1] * 144}]}, "between 0 and 255"),
        ({"inputs": [TENSOR | {"data": [256] * 144}]}, "between 0 and 255"),
        ({"inputs": [TENSOR | {"data": [10**30] * 144}]}, "between 0 and 255"),
        (ONE | {"outputs": [{"name": "logits"}]}, "requested: 'logits'"),
        (ONE | {"outputs": [{"name": "probabilities", "parameters": {"classification": 2}}]}, "classification"),
        ({"inputs": [TENSOR | {"parameters": {"shared_memory_region": "x"}, "data": None}]}, "neither"),
    ],
)
def test_an_invalid_tensor_gets_400(client, body, said):
    """The reason is in the fields of this API and of the protocol."""
    response = infer(client, body)
    assert response.status_code == 400, response.text
    problem = response.json()
    assert (problem["status"], problem["code"]) == (400, "wrong_tensor")
    assert said in problem["detail"]
    assert problem["error"] == problem["detail"]


def with_bytes(count: int, announced: object, json_length: int | None = None) -> tuple[bytes, dict[str, str]]:
    tensor = {k: v for k, v in TENSOR.items() if k != "data"} | {"parameters": {"binary_data_size": announced}}
    head = json.dumps({"inputs": [tensor]}).encode()
    length = len(head) if json_length is None else json_length
    return head + bytes(count), {"inference-header-content-length": str(length)}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (with_bytes(143, 144), "needs 144 bytes, binary_data_size says 144, and 143 follow"),
        (with_bytes(145, 144), "and 145 follow"),
        (with_bytes(144, 143), "binary_data_size says 143"),
        (with_bytes(144, None), "binary_data_size says None"),
        (with_bytes(0, 0), "neither 'data' nor bytes"),
        (with_bytes(144, 144, json_length=10**6), "its header announces 1000000 bytes of JSON"),
        ((b"", {"inference-header-content-length": "-1"}), "not a number of bytes: '-1'"),
        ((b"", {"inference-header-content-length": "9" * 400}), "bytes of JSON"),
    ],
)
def test_a_wrong_number_of_bytes_gets_400(client, request_, said):
    """It must match the shape and the parameter."""
    body, headers = request_
    response = infer(client, body, **headers)
    assert (response.status_code, response.json()["code"]) == (400, "wrong_tensor")
    assert said in response.json()["detail"]


def test_a_string_among_the_numbers_does_not_multiply_memory(client):
    """NumPy would make each number as wide as the string: 24 kB of JSON would take 4 GiB."""
    data = ["A" * 20_000] + [1] * 143
    tracemalloc.start()
    response = infer(client, {"inputs": [TENSOR | {"data": data}]})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (response.status_code, response.json()["code"]) == (400, "wrong_tensor")
    assert peak < 4 * 2**20


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [' + b"1," * 60_000 + b"1]}",
        b'{"inputs": [], "outputs": [' + b"1," * 60_000 + b"1]}",
        b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [' + b"-1," * 40_000 + b"-1]}]}",
        b'{"inputs": [], "outputs": [' + b'{"name":""},' * 10_000 + b'{"name":""}]}',
    ],
)
def test_many_bad_items_take_little_memory(client, body):
    """An error for each of a million items would take over a gigabyte, and seconds with Python's lock."""
    tracemalloc.start()
    response = infer(client, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (response.status_code, response.json()["code"]) == (400, "wrong_tensor")
    assert peak < 4 * 2**20


def test_json_larger_than_the_images_need_is_refused(client):
    """Before it is parsed, which would block other requests."""
    response = infer(client, b" " * 200_000)
    assert (response.status_code, response.json()["code"]) == (413, "upload_too_large")
