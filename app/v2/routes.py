"""The Open Inference Protocol (v2, REST) over the same batcher, for clients of KServe, Triton and MLServer."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from app import errors
from app.api.health import assess
from app.api.model_names import require_named
from app.contract import TensorSpec
from app.http.deadline import cancel_on_disconnect
from app.http.dependencies import get_classifier, get_settings
from app.http.problems import ANY_PROTOCOL_PROBLEM, INTERNAL, KINDS, NAMED_ANSWER, REQUEST_ID_HEADER, document_errors
from app.http.uploads import read_body
from app.v2.schemas import (
    InferenceResponse,
    ModelDescription,
    ModelReady,
    ResponseOutput,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from app.v2.tensors import DATATYPES, REQUEST_EXAMPLE, InferenceRequest, ParsedRequest, parse_request
from app.versions.model import Model, Scores

# The number of bytes of a body that are JSON; the bytes of tensors follow.
_JSON_LENGTH = "Inference-Header-Content-Length"
_BYTES = "application/octet-stream"

_document = partial(document_errors, protocol=True)
_MALFORMED = replace(
    KINDS[errors.MalformedUploadError],
    example="the body can't be unpacked: it is damaged, cut short, or not gzip",
)
_COMPRESSED = replace(
    KINDS[errors.UnsupportedUploadError],
    example="Content-Encoding: br is not supported; send the body as it is, or with gzip or deflate",
)
_MODEL_ERRORS = _document(errors.UnknownModelError, errors.NotReadyError)

router = APIRouter(
    prefix="/v2", tags=["open inference protocol"], responses={**NAMED_ANSWER, "default": ANY_PROTOCOL_PROBLEM}
)


def _write_schema() -> dict[str, Any]:
    """Write the schema of a request in one piece: FastAPI lists only the parts of models that it validates itself."""
    schema = InferenceRequest.model_json_schema()
    parts = schema.pop("$defs")
    text = json.dumps(schema)
    for name, part in parts.items():
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(part))
    written: dict[str, Any] = json.loads(text)
    return written


_LENGTH = {"schema": {"type": "integer", "minimum": 0}}
_INFER_DOCUMENTATION: dict[str, Any] = {
    "openapi_extra": {
        "parameters": [
            {
                "name": _JSON_LENGTH,
                "in": "header",
                "description": "The number of bytes of the body that are JSON, if bytes of tensors follow.",
                **_LENGTH,
            }
        ],
        "requestBody": {
            "required": True,
            "description": f"JSON; with the header `{_JSON_LENGTH}`, bytes of tensors may follow.",
            "content": {
                "application/json": {
                    "schema": _write_schema(),
                    "examples": {"one image": {"value": REQUEST_EXAMPLE}},
                },
                _BYTES: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
    "responses": {
        200: {
            "model": InferenceResponse,
            "content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                **REQUEST_ID_HEADER,
                _JSON_LENGTH: {"description": f"With `{_BYTES}`: the number of bytes that are JSON.", **_LENGTH}
            },
        },
        **_document(
            errors.TensorError, errors.UnknownModelError, errors.UploadTimeoutError, errors.UploadTooLargeError,
            _MALFORMED, _COMPRESSED, errors.UploadsFullError, errors.QueueFullError,
            errors.CrossSiteError,
            errors.InferenceError, INTERNAL, errors.NotReadyError, errors.DeadlineError,
        ),
    },
}  # fmt: skip


@router.get("", summary="Server metadata")
async def describe_server(request: Request) -> ServerMetadata:
    """Return the server's name and version, and the extensions of the protocol that it supports.

    ```console
    $ curl localhost:8000/v2
    ```
    """
    return ServerMetadata(name=request.app.title, version=request.app.version, extensions=["binary_tensor_data"])


# Some load balancers probe by HEAD; see `app.api.health`.
_also_head = partial(router.api_route, methods=["GET", "HEAD"], include_in_schema=False)


@router.get("/health/live", summary="Server liveness")
@_also_head("/health/live")
async def server_live() -> ServerLive:
    """Return 200 as long as the process answers.

    ```console
    $ curl localhost:8000/v2/health/live
    ```
    """
    return ServerLive(live=True)


@router.get(
    "/health/ready",
    summary="Server readiness",
    responses={
        503: {
            "model": ServerReady,
            "description": "It can't serve: `/health` has the reason.",
            "headers": REQUEST_ID_HEADER,
        }
    },
)
@_also_head("/health/ready")
async def server_ready(request: Request, response: Response) -> ServerReady:
    """Return 200 if this process can serve requests, 503 if not.

    ```console
    $ curl localhost:8000/v2/health/ready
    ```
    """
    ready = assess(get_classifier(request).store, draining=request.app.state.draining)[0] == "ok"
    response.status_code = 200 if ready else 503
    return ServerReady(ready=ready)


# Each of the following calls comes twice: for the version that serves, and for one that the path names. With one
# handler for both, FastAPI would look for the version in the query where the path has none.


@router.get("/models/{name}", summary="Model metadata", responses=_MODEL_ERRORS)
async def describe_tensors(request: Request, name: str) -> ModelDescription:
    """Return the names, types and shapes of the model's input and output.

    ```console
    $ curl localhost:8000/v2/models/$NAME
    ```
    """
    return _describe_model(require_named(get_classifier(request).store.require_model(), name))


@router.get("/models/{name}/versions/{version}", summary="Metadata of this version", responses=_MODEL_ERRORS)
async def describe_version(request: Request, name: str, version: str) -> ModelDescription:
    """Return the names, types and shapes of this version's input and output, if it serves.

    ```console
    $ curl localhost:8000/v2/models/$NAME/versions/$VERSION
    ```
    """
    return _describe_model(require_named(get_classifier(request).store.require_model(), name, version))


@router.get("/models/{name}/ready", summary="Model readiness", responses=_MODEL_ERRORS)
async def model_ready(request: Request, name: str) -> ModelReady:
    """Return that the model serves; if it does not, an error.

    ```console
    $ curl localhost:8000/v2/models/$NAME/ready
    ```
    """
    require_named(get_classifier(request).store.require_model(), name)
    return ModelReady(name=name, ready=True)


@router.get("/models/{name}/versions/{version}/ready", summary="Readiness of this version", responses=_MODEL_ERRORS)
async def version_ready(request: Request, name: str, version: str) -> ModelReady:
    """Return that this version serves; if it does not, an error.

    ```console
    $ curl localhost:8000/v2/models/$NAME/versions/$VERSION/ready
    ```
    """
    require_named(get_classifier(request).store.require_model(), name, version)
    return ModelReady(name=name, ready=True)


@router.post("/models/{name}/infer", summary="Classify tensors", **_INFER_DOCUMENTATION)
async def infer(request: Request, name: str) -> Response:
    """Classify images of the model's own size: all of them, or none.

    The outputs are the probabilities and, if the version has it, the typicality; a request may name one of them.
    `/model` has the values of `$NAME` and `$SIZE`.

    ```console
    $ python -c "import json; print(json.dumps({'inputs': [{'name': 'images', 'datatype': 'UINT8',
    >     'shape': [1, $SIZE, $SIZE, 3], 'data': [127] * ($SIZE * $SIZE * 3)}]}))" > tensor.json
    $ curl --json @tensor.json localhost:8000/v2/models/$NAME/infer
    ```
    """
    return await _infer(request, name)


@router.post(
    "/models/{name}/versions/{version}/infer", summary="Classify tensors by this version", **_INFER_DOCUMENTATION
)
async def infer_version(request: Request, name: str, version: str) -> Response:
    """Classify a tensor of images, if this version serves. `tensor.json` is the file from the previous example.

    ```console
    $ curl --json @tensor.json localhost:8000/v2/models/$NAME/versions/$VERSION/infer
    ```
    """
    return await _infer(request, name, version)


async def _infer(request: Request, name: str, version: str | None = None) -> Response:
    classifier, settings = get_classifier(request), get_settings(request)
    # Not the model: a slow upload would keep it in memory after the next version has taken over.
    expected = require_named(classifier.require_ready(), name, version).metadata
    body = await read_body(request, timeout_seconds=settings.upload_timeout_seconds)
    parse = partial(
        parse_request,
        body,
        _read_json_length(request),
        model_input=expected.input,
        model_outputs=expected.outputs,
        max_images=settings.max_files,
    )
    async with cancel_on_disconnect(request, timeout_seconds=settings.request_timeout_seconds):
        parsed = await classifier.run_decoding(parse)
        scores = await classifier.classify_all(list(parsed.images))
    require_named(scores[0].model, name, version)  # the version may have changed meanwhile
    return _answer(parsed, scores)


def _describe_model(model: Model) -> ModelDescription:
    metadata = model.metadata
    return ModelDescription(
        name=metadata.name,
        versions=[str(metadata.version)],
        platform="tensorflow_savedmodel",
        inputs=[_describe(metadata.input)],
        outputs=[_describe(output) for output in metadata.outputs],
    )


def _describe(tensor: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=tensor.name, datatype=DATATYPES[tensor.dtype], shape=[-1, *tensor.shape])


def _read_json_length(request: Request) -> int | None:
    said = request.headers.get(_JSON_LENGTH)
    if said is None:
        return None
    if not said.isdecimal():
        raise errors.TensorError(f"{_JSON_LENGTH} is not a number of bytes: {said[:20]!r}")
    return int(said[:20])


def _answer(parsed: ParsedRequest, scores: list[Scores]) -> Response:
    metadata = scores[0].model.metadata
    specs = {spec.name: spec for spec in metadata.outputs}
    tensors = {metadata.output.name: np.stack([score.probabilities for score in scores])}  # (N, classes)
    if metadata.typicality:
        tensors[metadata.typicality.name] = np.array([score.typicality for score in scores])  # (N,)
    outputs: list[ResponseOutput] = []
    tail = b""
    for wanted in parsed.outputs:
        if wanted.name not in tensors:  # a version without it took over since the request was parsed
            continue
        tensor = tensors[wanted.name].astype("<f4")
        output = ResponseOutput(**_describe(specs[wanted.name]).model_dump() | {"shape": list(tensor.shape)})
        if wanted.as_bytes:
            output.parameters = {"binary_data_size": tensor.nbytes}
            tail += tensor.tobytes()
        else:
            output.data = tensor.ravel().tolist()
        outputs.append(output)
    reply = InferenceResponse(
        model_name=metadata.name, model_version=str(metadata.version), id=parsed.id, outputs=outputs
    )
    head = reply.model_dump_json(exclude_none=True).encode()
    if not tail:
        return Response(head, media_type="application/json")
    return Response(head + tail, media_type=_BYTES, headers={_JSON_LENGTH: str(len(head))})
