"""Behaviour of app.errors and app.http.problems."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from fastapi.testclient import TestClient

from app import errors
from app.http.problems import (
    COMMON_KINDS,
    INTERNAL,
    KINDS,
    describe_error,
    document_errors,
)
from app.telemetry.timings import Trace, current
from tests.app.fakes import HeldModel, encode


def find_leaves(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    if not kind.__subclasses__():
        yield kind
    for child in kind.__subclasses__():
        yield from find_leaves(child)


def test_every_error_that_clients_get_is_in_the_table():
    """An error without a row would become a 500."""
    assert set(KINDS) == set(find_leaves(errors.ServiceError)) - {errors.RefusedVersionError}


def test_codes_are_unique():
    """Programs distinguish errors by them."""
    codes = {kind.code for kind in (*KINDS.values(), INTERNAL, *COMMON_KINDS)}
    assert len(codes) == len({*KINDS.values(), INTERNAL, *COMMON_KINDS})
    assert all(re.fullmatch(r"[a-z0-9_]+", code) for code in codes)


def test_the_tree_in_the_docstring_matches_the_classes():
    """Each class is at its depth below its parent."""
    drawn = re.findall(r"^([│├└─ ]*)(\w+Error)\b", errors.__doc__, re.MULTILINE)
    path: list[str] = []
    for indent, name in drawn:
        path[len(indent) // 4 :] = [name]
        assert [base.__name__ for base in getattr(errors, name).__mro__[: len(path)]] == path[::-1]
    assert {name for _, name in drawn} == {name for name in dir(errors) if name.endswith("Error")}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_documentation_of_an_error_matches_its_answer(kind):
    """Status, code and headers."""
    retry_after = {"retry_after_seconds": 2} if issubclass(kind, errors.RetryableError) else {}
    problem = describe_error(kind(KINDS[kind].example, **retry_after), "7f3c0a52e1d94b6c")
    [(status, response)] = document_errors(kind).items()
    [(code, example)] = response["content"]["application/problem+json"]["examples"].items()
    assert (status, code) == (problem.status, problem.code)
    assert example["value"] == problem.model_dump(exclude_none=True)
    headers = {"X-Request-ID"} | ({"Retry-After"} if retry_after else set())
    assert set(response["headers"]) == headers | ({"WWW-Authenticate"} if status == 401 else set())


KEY = "a-long-enough-key"
IMAGE = {"files": {"file": encode()}}
PNG = {"content-type": "image/png"}
INFER = "/v2/models/{name}/infer"
# Bad requests for each endpoint.
REFUSED = [
    ("/predict", {"files": {"file": b""}}),
    ("/predict", {"content": b"", "headers": {"content-type": "multipart/form-data"}}),
    ("/predict", {"content": bytes(5001), "headers": PNG}),
    ("/predict", {"files": {"file": encode(size=(50, 50))}}),
    ("/predict", {"content": b"", "headers": {"content-type": "text/plain"}}),
    ("/predict", {"files": {"file": b"a text"}}),
    ("/predict", {"files": {"file": encode()[:12]}}),
    ("/predict", {"files": {"picture": encode()}}),
    ("/predict", {"files": [("file", encode())] * 2}),
    ("/predict", IMAGE | {"params": {"top_k": 50}}),
    ("/predict/batch", {"content": b"", "headers": PNG}),
    ("/predict/batch", IMAGE),
    ("/predict/batch", {"files": [("files", b"")] * 33}),
    (INFER, {"json": {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1]}]}}),
    (INFER, {"content": b"", "headers": {"content-encoding": "br"}}),
    (INFER, {"content": b"", "headers": {"content-encoding": "gzip"}}),
    (INFER, {"content": bytes(5001)}),
    ("/v2/models/{name}/versions/{version}/infer", {}),
]


def ask(client: TestClient, path: str, **body: object) -> tuple[str, Response]:
    return path, client.post(path.format(name="tiny", version=2), **body)


def cause_every_problem(make_client: Callable[..., TestClient]) -> Iterator[tuple[str, Response]]:
    """Yield the path of an endpoint and an answer with a problem, for each kind of problem."""
    client = make_client(max_image_pixels=1200, max_upload_bytes=5000)
    for path, body in REFUSED:
        yield ask(client, path, **body)
    with ExitStack() as places:
        for _ in range(256):
            places.enter_context(client.app.state.classifier._batcher.admit())
        yield ask(client, "/predict", **IMAGE)
    client.app.state.classifier.store._model = None
    yield ask(client, "/predict", **IMAGE)
    client.app.state.classifier = None
    yield ask(client, "/predict", **IMAGE)
    yield ask(make_client(lambda _: {}["secret"]), "/predict", **IMAGE)
    held = HeldModel()
    yield ask(make_client(held, request_timeout_seconds=0.1), "/predict", **IMAGE)
    held.opened.set()
    held = HeldModel()
    client = make_client(held, max_upload_bytes=1024, max_uploads_total_bytes=1024)
    with ThreadPoolExecutor() as threads:
        threads.submit(ask, client, "/predict", **IMAGE)
        assert held.reached.wait(timeout=10)
        yield ask(client, "/predict", content=bytes(1024), headers=PNG)
        held.opened.set()
    for path in ("/predict", INFER):
        yield ask(make_client(api_keys=KEY), path, **IMAGE)
        yield ask(make_client(), path, **IMAGE, headers={"origin": "https://example.org"})


NAMED_HEADERS = ("X-Request-ID", "Retry-After", "WWW-Authenticate")


def blur(problem: dict[str, Any]) -> str:
    """Remove what differs between answers: the request id, numbers, the model's name, the list of formats."""
    text = json.dumps(problem | {"request_id": ""}).replace("'tiny'", "'flowers'")
    text = re.sub(r"JPEG, PNG[\w, ]*", "formats", text)
    return re.sub(r"\b\d+([.,]\d+)*", "0", text)


def test_the_documented_examples_match_the_answers(make_client):
    """Word for word, for each problem."""
    document = make_client(api_keys=KEY).get("/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()
    met = set()
    for path, answer in cause_every_problem(make_client):
        sent = answer.json()
        response = document["paths"][path]["post"]["responses"][str(answer.status_code)]
        assert {name for name in NAMED_HEADERS if name in answer.headers} == response["headers"].keys()
        content = response["content"][answer.headers["content-type"]]
        assert blur(sent) == blur(content["examples"][sent["code"]]["value"])
        assert ("error" in sent) == ("error" in content["schema"].get("required", []))
        met.add(sent["code"])
    others = {
        errors.UploadTimeoutError,
        errors.ClientGoneError,
        errors.UnknownHostError,
    }  # slow to cause, or not of an endpoint
    assert met == {KINDS[kind].code for kind in KINDS.keys() - others} | {INTERNAL.code}


def test_documented_problems_are_not_counted():
    """A problem counts when it is answered."""
    trace = Trace()
    asyncio.run(follow(trace))
    assert trace.problems == ["empty_upload"]


async def follow(trace: Trace) -> None:
    """Document errors and answer one, in a request with this trace."""
    current.set(trace)
    document_errors(errors.TensorError, INTERNAL)
    describe_error(errors.EmptyUploadError("the file is empty"), None)


@pytest.mark.parametrize(
    ("root", "path", "has_error"),
    [
        ("", "/v2", True), ("", "/v2/x", True), ("", "/v1/x", True), ("", "/v2foo", False), ("/api", "/v2/x", True),
        ("/v2", "/x", False),
    ],
)  # fmt: skip
def test_problems_of_other_protocols_have_the_field_error(client, root, path, has_error):
    """The protocols' clients read it. It is found below a proxy's prefix too, and only under /v1 and /v2."""
    answer = TestClient(client.app, root_path=root).post(f"{root}{path}")
    problem = answer.json()
    assert problem.get("error") == (problem["detail"] if has_error else None)


def test_errors_have_no_status():
    """Only the table knows HTTP."""
    assert not hasattr(errors.EmptyUploadError(""), "status")


def test_the_reference_lists_every_code():
    """With its status, except codes that no client receives."""
    reference = (Path(__file__).parents[3] / "docs" / "reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (`[a-z_`, ]+`) \|", reference, re.MULTILINE)
    named = {(int(status), code) for status, codes in rows for code in re.findall(r"[a-z_]+", codes)}
    kinds = {*KINDS.values(), INTERNAL, *COMMON_KINDS} - {KINDS[errors.ClientGoneError]}
    assert named == {(kind.status, kind.code) for kind in kinds}
