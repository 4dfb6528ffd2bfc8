"""Behaviour of the API as clients see it: app.api.routes, app.api.schemas, app.main."""

import io
import json
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import TypeAdapter

from app.api.schemas import Classification
from app.contract import ModelMetadata
from app.http.problems import COMMON_KINDS, METHOD_NOT_ALLOWED, NOT_FOUND
from app.main import create_app
from app.runtime.load import Answers
from app.settings import Settings
from app.versions.model import Model
from tests.app.client import check_problem, predict
from tests.app.fakes import HeldModel, encode, make_model, tell_brightness, tell_colours, wait_until_loaded


def test_an_uploaded_file_is_classified(client):
    """The form field `file` gets the label, its probability, the other classes and the model."""
    response = predict(client, encode((200, 50, 0)))
    assert response.status_code == 200
    assert response.json() == {
        "label": "red",
        "probability": pytest.approx(0.8, abs=1e-5),
        "predictions": [
            {"label": "red", "probability": pytest.approx(0.8, abs=1e-5)},
            {"label": "green", "probability": pytest.approx(0.2, abs=1e-5)},
            {"label": "blue", "probability": pytest.approx(0, abs=1e-5)},
        ],
        "model": {"name": "tiny", "version": 1},
    }


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "IMAGE/x-anything; q=1"])
def test_a_raw_body_is_classified(client, content_type):
    """Any image/… type is accepted, because the bytes decide the format."""
    response = client.post("/predict", content=encode("blue"), headers={"content-type": content_type})
    assert response.json()["label"] == "blue"


def test_a_file_of_some_megabytes_is_classified(client):
    """Files of more than a megabyte, which many form parsers store on disk, are read too."""
    noise = np.random.default_rng(0).integers(0, 100, (800, 800, 3), dtype=np.uint8)
    noise[..., 1] += 100
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2**20
    assert predict(client, buffer.getvalue()).json()["label"] == "green"


@pytest.mark.parametrize(("query", "count"), [("", 3), ("?top_k=1", 1), ("?top_k=2", 2), ("?top_k=3", 3)])
def test_top_k_is_the_number_of_classes_in_the_answer(client, query, count):
    """The default is five, or all classes if there are fewer."""
    assert len(predict(client, encode(), query=query).json()["predictions"]) == count


def test_the_default_is_the_five_most_probable_classes(models):
    """In order of probability."""
    tiny = make_model()
    names = tuple("abcdefghij")
    output = tiny.metadata.output.model_copy(update={"shape": (10,)})
    metadata = tiny.metadata.model_copy(update={"class_names": names, "output": output})
    scores = np.arange(10, dtype=np.float32) / 45
    runtime = replace(tiny.runtime, output=output, predict=lambda images: Answers(np.tile(scores, (len(images), 1))))
    app = create_app(Settings(model_dir=models), load=lambda *_, **__: Model(metadata, runtime))
    with TestClient(app) as client:
        wait_until_loaded(client)
        predictions = predict(client, encode()).json()["predictions"]
        assert [row["label"] for row in predictions] == list("jihgf")
        assert len(predict(client, encode(), query="?top_k=10").json()["predictions"]) == 10


@pytest.mark.parametrize("value", ["0", "-1", "4"])
def test_top_k_out_of_range_is_refused(client, value):
    """The error names the valid range."""
    detail = check_problem(predict(client, encode(), query=f"?top_k={value}"), 422, "top_k_out_of_range")
    assert detail == f"top_k={value}, but the model has 3 classes; send 1 to 3"


@pytest.mark.parametrize("value", ["many", "1.5", "", "1_0", " 3 ", "\u0663"])
def test_top_k_that_is_not_a_number_is_refused(client, value):
    """The code is that of a number out of range."""
    detail = check_problem(predict(client, encode(), query=f"?top_k={value}"), 422, "top_k_out_of_range")
    assert detail == f"top_k={value!r} is not a whole number"


def test_a_batch_is_answered_in_order(client):
    """A bad image gets an error in its place, and does not affect the others."""
    images = [encode("blue"), b"text", encode("red"), b"", encode("lime")]
    response = client.post("/predict/batch?top_k=1", files=[("files", ("x", image)) for image in images])
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result.get("label", result.get("code")) for result in results] == [
        "blue", "unsupported_image", "red", "empty_upload", "green",
    ]  # fmt: skip
    assert results[0] == predict(client, images[0], query="?top_k=1").json()
    assert results[1]["request_id"] == response.headers["x-request-id"]


def test_typicality_is_in_every_result(make_client):
    """It is rounded, and between 0 and 1."""
    client = make_client(typicality=tell_brightness)
    assert client.post("/predict", files={"file": encode("red")}).json()["typicality"] == 0.333333
    files = [("files", encode(colour)) for colour in ("black", "white")]
    results = client.post("/predict/batch", files=files).json()["results"]
    assert [result["typicality"] for result in results] == [0, 1]


def test_an_answer_has_no_typicality_if_the_version_has_none(client):
    """The field is absent, not null."""
    assert "typicality" not in client.post("/predict", files={"file": encode()}).json()
    [result] = client.post("/predict/batch", files={"files": encode()}).json()["results"]
    assert "typicality" not in result


@pytest.mark.parametrize("typicality", [None, tell_brightness])
def test_a_reply_has_the_documented_members(make_client, typicality):
    """In the order of the schema, with values that it allows."""
    reply = predict(make_client(typicality=typicality), encode("red")).json()
    assert TypeAdapter(Classification).validate_python(reply, strict=True) == reply
    names = [name for name in Classification.__annotations__ if typicality or name != "typicality"]
    assert list(reply) == names


@pytest.mark.parametrize("settings", [{"max_batch_files": 3}, {"max_queue_size": 3}])
def test_too_many_images_in_a_batch_are_refused(make_client, settings):
    """The error names the limit. A batch larger than the queue could never be accepted, so it gets 422, not 429."""
    client = make_client(**settings)
    files = [("files", ("x", encode()))] * 40
    assert len(client.post("/predict/batch", files=files[:3]).json()["results"]) == 3
    for count in (4, 5, 40):
        detail = check_problem(client.post("/predict/batch", files=files[:count]), 422, "too_many_images")
        assert detail == "send at most 3 images in one request"


@pytest.mark.parametrize("settings", [{"max_batch_files": 1}, {"max_queue_size": 1}])
def test_the_error_for_a_limit_of_one_is_worded_for_it(make_client, settings):
    """It does not point to `/predict/batch`, which the client has called."""
    response = make_client(**settings).post("/predict/batch", files=[("files", encode())] * 2)
    assert check_problem(response, 422, "too_many_images") == "send one image in one request"


def test_predict_refuses_several_images(client):
    """The error names `/predict/batch`."""
    for count in (2, 16, 17, 40):
        files = [("file", ("x", encode()))] * count
        detail = check_problem(client.post("/predict", files=files), 422, "too_many_images")
        assert detail == "send one image; /predict/batch takes several"


def test_a_batch_requires_the_field_files(client):
    """The error names the field, which differs from that of `/predict`."""
    response = client.post("/predict/batch", files={"file": encode()})
    assert "belongs in the field 'files'; found: 'file'" in check_problem(response, 422, "wrong_field")


def test_model_returns_the_metadata(client):
    """`/model` returns the metadata unchanged."""
    assert client.get("/model").json() == json.loads(make_model().metadata.model_dump_json())


def test_a_real_version_is_served(exported):
    """The service loads and runs a SavedModel with OpenVINO."""
    with TestClient(create_app(Settings(model_dir=exported.parent.parent, max_batch_size=4))) as client:
        wait_until_loaded(client)
        assert client.get("/health").json()["runtime"]["name"] == "openvino"
        reply = predict(client, encode("blue")).json()
        assert reply["label"] == "blue"
        assert reply["probability"] > 0.9


def test_a_full_queue_answers_429(make_client):
    """With `Retry-After`. Accepted images are still classified, and probes are answered."""
    held = HeldModel()
    client = make_client(held, max_queue_size=1)
    answers = []
    first = threading.Thread(target=lambda: answers.append(predict(client, encode("blue"))))
    first.start()
    assert held.reached.wait(10)
    response = predict(client, encode())
    check_problem(response, 429, "queue_full")
    assert response.headers["retry-after"] == "1"
    assert client.get("/health").status_code == 200
    held.opened.set()
    first.join()
    assert answers[0].json()["label"] == "blue"


def test_a_batch_is_partly_answered_if_the_queue_fills(make_client):
    """The images that find no room get 429 in their place."""

    def wait(images):
        time.sleep(0.1)
        return tell_colours(images)

    client = make_client(wait, max_queue_size=4)
    others = client.app.state.classifier._batcher
    with others.admit(), others.admit():
        results = client.post("/predict/batch", files=[("files", encode())] * 4).json()["results"]
    assert [result.get("code", "fine") for result in results] == ["fine", "fine", "queue_full", "queue_full"]
    assert results[2]["retry_after_seconds"] == 1


def test_a_failing_model_answers_500_without_details(make_client):
    """The log has the reason; the client gets the request id."""
    client = make_client(lambda _: {}["secret"])
    assert "secret" not in check_problem(predict(client, encode()), 500, "inference_failed")


def test_an_unexpected_error_answers_500_without_details(client, monkeypatch):
    """It is a problem detail with the request id, like any other error."""
    monkeypatch.setattr("app.api.routes.read_image", lambda *_, **__: {}["secret"])
    assert "secret" not in check_problem(predict(client, encode()), 500, "internal")


def test_an_unexpected_error_has_the_common_headers(make_client, monkeypatch):
    """Such as those for CORS and security, and `Connection: close` while the service drains."""
    client = make_client(cors_origins="https://a.example")
    client.app.state.draining = True
    missing = client.get("/nowhere", headers={"origin": "https://a.example"}).headers
    monkeypatch.setattr("app.api.routes.read_image", lambda *_, **__: {}["secret"])
    fault = client.post("/predict", files={"file": encode()}, headers={"origin": "https://a.example"}).headers
    assert fault.keys() == missing.keys()
    assert {"connection", "x-request-id", "x-frame-options", "access-control-allow-origin"} <= fault.keys()


def test_an_unknown_path_gets_a_problem_detail(client):
    """The framework's own errors have the same format as the service's."""
    detail = check_problem(client.get("/nowhere"), NOT_FOUND.status, NOT_FOUND.code)
    assert detail == "GET /nowhere: Not Found; see /docs for the paths that exist"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/predict", ["POST"]), ("POST", "/health", ["GET", "HEAD"]), ("POST", "/docs", ["GET", "HEAD"])],
)
def test_a_wrong_method_gets_the_allowed_ones(client, method, path, allowed):
    """In the detail for people, and in `Allow` for programs."""
    response = client.request(method, path)
    detail = check_problem(response, METHOD_NOT_ALLOWED.status, METHOD_NOT_ALLOWED.code)
    assert detail == f"{method} {path}: send {' or '.join(allowed)}; see /docs for the paths that exist"
    assert sorted(response.headers["allow"].split(", ")) == allowed


def test_the_client_can_choose_the_request_id(client):
    """The logs of both then have the same id."""
    response = client.get("/nowhere", headers={"x-request-id": "job-17.a:b"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "job-17.a:b"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 129, 'quote"', "newline\\n", "{}", "ümlaut".encode("latin-1")])
def test_an_invalid_request_id_is_replaced(client, offered):
    """So that a client can't forge log lines."""
    named = client.get("/health/live", headers={"x-request-id": offered}).headers["x-request-id"]
    assert len(named) == 32
    assert named != client.get("/health/live").headers["x-request-id"]


def test_the_documented_accept_header_gets_json(client):
    """Java's HTTP client accepts HTML by default, and gets JSON with this header."""
    description = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["description"]
    header, value = re.search(r"`(Accept): (application/json)`", description).groups()
    for accept, kind in (("text/html, image/gif, image/jpeg, */*; q=.2", "text/html"), (value, "application/json")):
        answer = client.post("/predict", files={"file": encode()}, headers={header: accept})
        assert answer.headers["content-type"].startswith(kind)


def test_the_documentation_lists_the_headers_of_every_answer(make_client):
    """`X-Request-ID` everywhere, and `Retry-After` with 429 and 503."""
    document = make_client(api_keys="a-long-enough-key").app.openapi()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                assert "X-Request-ID" in response["headers"], (path, status)
                comes_back = status in {"429", "503"} and path != "/v2/health/ready"
                assert ("Retry-After" in response["headers"]) == comes_back, (path, status)


def test_the_framework_validates_nothing_itself(client):
    """Its errors would have another format. It only reads path parameters, which may be any text."""
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    assert parameter["schema"].keys() <= {"type", "title"}
                    assert parameter["schema"]["type"] == "string"
                elif parameter["in"] == "query":
                    assert path.startswith("/predict")


def test_the_documentation_describes_every_endpoint(client):
    """With examples of requests, answers and errors."""
    document = client.get("/openapi.json").json()
    assert {path for path in document["paths"] if not path.startswith(("/v1", "/v2"))} == {
        "/predict", "/predict/batch", "/health", "/health/live", "/model", "/metrics",
    }  # fmt: skip
    operation = document["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "image/*", "application/octet-stream"}
    assert set(operation["responses"]) == {
        "200", "400", "403", "408", "413", "415", "422", "429", "500", "503", "504",
    }  # fmt: skip
    assert document["components"]["schemas"]["Classification"]["examples"]
    ModelMetadata.model_validate(
        document["paths"]["/model"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    )
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(document)):
        assert name in document["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(document)
    for kind in COMMON_KINDS:
        assert f"| {kind.status} | `{kind.code}` |" in document["info"]["description"]
    for path, operations in document["paths"].items():
        for operation in operations.values():  # FastAPI's default summary is the function's name
            assert operation["summary"] != operation["operationId"].replace("_", " ").title(), path
    assert client.get("/docs").status_code == 200
