"""Behaviour of app.v2.routes: with Triton's client over real sockets, and with requests written by hand."""

import gc
import json
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from app.main import create_app
from app.settings import Settings
from app.v2.tensors import InferenceRequest, RequestInput
from app.versions.model import Model
from tests.app.fakes import make_model, paint, tell_brightness, tell_colours, wait_until_loaded
from tests.app.v2.inference import ONE, infer, write_request


def ask_for(images: np.ndarray, *, binary: bool, datatype: str = "UINT8", name: str = "images") -> list[InferInput]:
    tensor = InferInput(name, list(images.shape), datatype)
    tensor.set_data_from_numpy(images, binary_data=binary)
    return [tensor]


@pytest.fixture
def connect(models) -> Iterator[Callable[..., InferenceServerClient]]:
    """Start services with a fake model, each with a Triton client; takes the model's function, and settings."""
    running = []

    def start(predict=tell_colours, typicality=None, **settings: object) -> InferenceServerClient:
        app = create_app(
            Settings(model_dir=models, **settings), load=lambda _: make_model(predict, typicality=typicality)
        )
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        client = InferenceServerClient(f"127.0.0.1:{port}")
        running.append((server, thread, client))
        while not client.is_server_ready():
            time.sleep(0.01)
        client.app = app
        return client

    yield start
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join()


def test_tritons_client_finds_server_and_model(connect):
    """Liveness, readiness and metadata, with and without a version."""
    client = connect()
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    expected = {
        "name": "tiny",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 6, 3]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert client.get_model_metadata("tiny") == client.get_model_metadata("tiny", "1") == expected
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")


def test_another_model_or_version_is_not_found(connect):
    """It is not ready, and has no metadata or inference. The message names the model that serves."""
    client = connect()
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("huge")
    with pytest.raises(InferenceServerException, match=r"'huge' is not being served; 'tiny' version 1 is"):
        client.get_model_metadata("huge")
    with pytest.raises(InferenceServerException, match=r"'tiny' version 2 is not being served") as caught:
        client.infer("tiny", ask_for(paint("red"), binary=True), model_version="2")
    assert caught.value.status() == "404"


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
def test_tritons_client_infers(connect, binary_input, binary_output):
    """Tensors as JSON or bytes, in every combination. The answer has the request's id."""
    client = connect()
    images = paint("red", "blue", "green", "blue")
    outputs = None if binary_output is None else [InferRequestedOutput("probabilities", binary_data=binary_output)]
    result = client.infer(
        "tiny", ask_for(images, binary=binary_input), outputs=outputs, request_id="job-7", model_version="1"
    )
    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(probabilities, tell_colours(images))
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("tiny", "1", "job-7")
    assert ("binary_data_size" in response["outputs"][0].get("parameters", {})) == (binary_output is not False)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritons_client_may_compress(connect, algorithm):
    """Both JSON and bytes. It asks for compressed answers and accepts uncompressed ones."""
    images = paint("red", "blue")
    for binary in (True, False):
        result = connect().infer(
            "tiny",
            ask_for(images, binary=binary),
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        np.testing.assert_array_equal(result.as_numpy("probabilities"), tell_colours(images))


@pytest.mark.parametrize("binary", [True, False])
def test_typicality_is_the_second_output(connect, binary):
    """In the metadata, in answers by default, and alone if only it is requested."""
    client = connect(typicality=tell_brightness)
    assert client.get_model_metadata("tiny")["outputs"][1] == {"name": "typicality", "datatype": "FP32", "shape": [-1]}
    images = paint("red", "blue", "green")
    images[1] //= 2
    for names in (["probabilities", "typicality"], ["typicality", "probabilities"], ["typicality"], ["probabilities"]):
        outputs = [InferRequestedOutput(name, binary_data=binary) for name in names]
        result = client.infer("tiny", ask_for(images, binary=True), outputs=outputs)
        assert [output["name"] for output in result.get_response()["outputs"]] == names
        for name, expected in (("probabilities", tell_colours(images)), ("typicality", tell_brightness(images))):
            if name in names:
                np.testing.assert_array_equal(result.as_numpy(name), expected)
    result = client.infer("tiny", ask_for(images, binary=True))
    np.testing.assert_array_equal(result.as_numpy("typicality"), tell_brightness(images))


def test_parameters_of_an_output_override_those_of_the_request(make_client):
    """Each output can be JSON or bytes."""
    client = make_client(typicality=tell_brightness)
    outputs = [{"name": "typicality", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
    response = infer(client, ONE | {"outputs": outputs, "parameters": {"binary_data_output": True}})
    length = int(response.headers["inference-header-content-length"])
    typicality, probabilities = json.loads(response.content[:length])["outputs"]
    assert typicality["data"] == [pytest.approx(1 / 3)]
    assert (typicality["shape"], probabilities["shape"]) == ([1], [1, 3])
    assert "data" not in probabilities
    np.testing.assert_array_equal(np.frombuffer(response.content[length:], "<f4"), tell_colours(paint("red"))[0])


def test_unknown_outputs_are_refused(client, make_client):
    """And outputs that are requested twice."""
    response = infer(client, ONE | {"outputs": [{"name": "typicality"}]})
    assert response.status_code == 400
    assert response.json()["detail"].endswith("are 'probabilities', each at most once; requested: 'typicality'")
    response = infer(make_client(typicality=tell_brightness), ONE | {"outputs": [{"name": "typicality"}] * 2})
    assert response.status_code == 400
    assert "'probabilities' and 'typicality', each at most once; requested: 'typicality', 'typicality'" in response.text


def test_a_version_without_typicality_may_take_over_during_a_request(make_client):
    """The answer has no typicality then."""
    client = make_client(typicality=tell_brightness)
    store = client.app.state.classifier.store

    def roll_back(images):
        store._model = make_model()
        return tell_colours(images)

    store._model = make_model(roll_back, typicality=tell_brightness)
    two = write_request(paint("red", "blue"))
    for _ in range(2):
        response = infer(client, two)
        assert response.status_code == 200
    assert [output["name"] for output in response.json()["outputs"]] == ["probabilities"]


def test_a_full_queue_is_an_error_for_tritons_client(connect):
    """With the service's message."""
    client = connect(max_queue_size=1)
    with client.app.state.classifier._batcher.admit(), pytest.raises(InferenceServerException, match="wait") as caught:
        client.infer("tiny", ask_for(paint("red"), binary=True))
    assert caught.value.status() == "429"


def test_too_many_images_in_a_request_are_refused(connect):
    """By the setting, or because the queue is shorter: it could never be accepted."""
    for settings in ({"max_batch_files": 2}, {"max_queue_size": 2}):
        client = connect(**settings)
        with pytest.raises(InferenceServerException, match="1 to 2") as caught:
            client.infer("tiny", ask_for(paint("red", "red", "red"), binary=True))
        assert caught.value.status() == "400"


def test_a_failing_model_is_an_error_for_tritons_client(connect):
    """Without details of the failure."""
    client = connect(lambda _: {}["secret"])
    with pytest.raises(InferenceServerException, match="the model failed on this image") as caught:
        client.infer("tiny", ask_for(paint("red", "blue"), binary=True))
    assert caught.value.status() == "500"


def test_tritons_client_sees_a_drain(connect):
    """The server is not ready, but alive, and still answers."""
    client = connect()
    client.app.state.draining = True
    assert not client.is_server_ready()
    assert client.is_server_live()
    assert client.infer("tiny", ask_for(paint("blue"), binary=True)).as_numpy("probabilities").argmax() == 2


def test_the_protocol_needs_a_key(connect):
    """Except its probes. Its clients can read the error."""
    client = connect(api_keys="a-long-enough-key")
    assert client.is_server_live()
    with pytest.raises(InferenceServerException, match="send a key") as caught:
        client.infer("tiny", ask_for(paint("red"), binary=True))
    assert caught.value.status() == "401"
    headers = {"Authorization": "Bearer a-long-enough-key"}
    result = client.infer("tiny", ask_for(paint("red"), binary=True), headers=headers)
    assert result.as_numpy("probabilities").argmax() == 0


def test_the_documentation_shows_the_protocol(client):
    """Every path, each operation with a unique id."""
    document = client.get("/openapi.json").json()
    model = "/v2/models/{name}"
    version = "/v2/models/{name}/versions/{version}"
    assert {path for path in document["paths"] if path.startswith("/v2")} == {
        "/v2", "/v2/health/live", "/v2/health/ready",
        model, f"{model}/ready", f"{model}/infer", version, f"{version}/ready", f"{version}/infer",
    }  # fmt: skip
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    assert set(document["paths"][f"{model}/infer"]["post"]["responses"]) == {
        "200", "400", "403", "404", "408", "413", "415", "429", "500", "503", "504", "default",
    }  # fmt: skip


def test_the_documented_requests_are_accepted(models):
    """By a model with images of their size."""
    tiny = make_model()
    takes = tiny.metadata.input.model_copy(update={"shape": (2, 2, 3)})
    metadata = tiny.metadata.model_copy(update={"input": takes})
    model = Model(metadata, replace(tiny.runtime, input=takes))
    with TestClient(create_app(Settings(model_dir=models), load=lambda *_, **__: model)) as client:
        wait_until_loaded(client)
        examples = [
            (path.format(name="tiny", version="1"), example["value"])
            for path, operations in client.get("/openapi.json").json()["paths"].items()
            for operation in operations.values()
            for content in operation.get("requestBody", {"content": {}})["content"].values()
            if path.startswith("/v2")
            for example in content.get("examples", {}).values()
        ]
        assert len(examples) == 2
        for path, example in examples:
            answer = client.post(path, json=example).json()
            assert (answer["id"], np.argmax(answer["outputs"][0]["data"])) == (example["id"], 0)


def test_without_a_model_the_protocol_answers_503(tmp_path):
    """For readiness and inference, with `Retry-After`."""
    with TestClient(create_app(Settings(model_dir=tmp_path))) as client:
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        response = infer(client, ONE)
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert int(response.headers["retry-after"]) > 0
        assert "error" not in client.get("/model").json()


@pytest.mark.parametrize("path", ["/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"])
def test_the_documentation_describes_inference_completely(client, path):
    """Every field of a request, and the header that separates JSON from bytes, which answers have too."""
    operation = client.get("/openapi.json").json()["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"].keys() == InferenceRequest.model_fields.keys()
    assert schema["properties"]["inputs"]["items"]["properties"].keys() == RequestInput.model_fields.keys()
    assert "$defs" not in json.dumps(schema)
    [header] = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"]
    answer = infer(client, ONE | {"parameters": {"binary_data_output": True}})
    assert header in answer.headers
    assert header in operation["responses"]["200"]["headers"]


def test_the_version_is_only_read_from_the_path(client):
    """A query parameter is ignored and not documented."""
    for path in ("", "/ready"):
        assert client.get(f"/v2/models/tiny{path}?version=2").status_code == 200
    assert client.post("/v2/models/tiny/infer?version=2", json=ONE).status_code == 200
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            parameters = operation.get("parameters", [])
            in_path = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
            in_query = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert in_query == ({"top_k"} if path.startswith("/predict") else set())


def test_an_upload_in_progress_keeps_no_model_in_memory(connect):
    """Otherwise a slow upload would keep a replaced version in memory."""
    client = connect()
    store = client.app.state.classifier.store
    body = json.dumps(write_request(paint("red"))).encode()
    with socket.create_connection(("127.0.0.1", client._parsed_url.port), timeout=10) as upload:
        upload.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        upload.sendall(body[:9])
        time.sleep(0.3)
        former = weakref.ref(store.model)
        store._model = make_model()
        gc.collect()
        assert former() is None
        upload.sendall(body[9:])
        assert upload.recv(15) == b"HTTP/1.1 200 OK"
