"""TensorFlow Serving's REST API (v1) over the same classifier, with what KServe's V1 protocol adds to it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from app import errors
from app.api.model_names import require_named
from app.contract import TensorSpec
from app.http.deadline import cancel_on_disconnect
from app.http.dependencies import get_classifier, get_settings
from app.http.direct_route import write_model
from app.http.problems import ANY_PROTOCOL_PROBLEM, INTERNAL, NAMED_ANSWER, document_errors
from app.http.uploads import read_body
from app.runtime.load import SIGNATURE
from app.v1.instances import Instances, parse_request
from app.v1.schemas import (
    PREDICT_EXAMPLES,
    Metadata,
    ModelList,
    ModelSpec,
    ModelStatus,
    Outputs,
    Predictions,
    PredictRequest,
    SignatureDef,
    SignatureDefs,
    TensorInfo,
    VersionStatus,
)
from app.versions.model import Model, Scores

_DTYPES = {"uint8": "DT_UINT8", "float32": "DT_FLOAT"}

_document = partial(document_errors, protocol=True)
_MODEL_ERRORS = _document(errors.UnknownModelError, errors.NotReadyError)
_PREDICT: dict[str, Any] = {
    "response_model": Predictions | Outputs,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": PredictRequest.model_json_schema(), "examples": PREDICT_EXAMPLES}
            },
        }
    },
    "responses": _document(
        errors.TensorError, errors.EmptyUploadError, errors.BrokenImageError, errors.ImageTooLargeError,
        errors.UnsupportedImageError, errors.UnknownModelError, errors.UploadTimeoutError, errors.UploadTooLargeError,
        errors.MalformedUploadError, errors.UnsupportedUploadError, errors.UploadsFullError, errors.QueueFullError,
        errors.CrossSiteError, errors.InferenceError, INTERNAL, errors.NotReadyError, errors.DeadlineError,
    ),
}  # fmt: skip

router = APIRouter(
    prefix="/v1", tags=["tensorflow serving"], responses={**NAMED_ANSWER, "default": ANY_PROTOCOL_PROBLEM}
)


@router.get("/models", summary="The models that serve (KServe)")
async def list_models(request: Request) -> ModelList:
    """Return the name of the model; an empty list while there is none.

    ```console
    $ curl localhost:8000/v1/models
    ```
    """
    model = get_classifier(request).store.model
    return ModelList(models=[model.metadata.name] if model else [])


# Each of the following calls comes twice: for the version that serves, and for one that the path names.


@router.get("/models/{name}", summary="Status of the model", responses=_MODEL_ERRORS)
async def show_status(request: Request, name: str) -> ModelStatus:
    """Return which version serves, with the members that KServe's clients look for.

    ```console
    $ curl localhost:8000/v1/models/$NAME
    ```
    """
    return _describe_status(require_named(get_classifier(request).store.require_model(), name))


@router.get("/models/{name}/versions/{version}", summary="Status of this version", responses=_MODEL_ERRORS)
async def show_version_status(request: Request, name: str, version: str) -> ModelStatus:
    """Return the status of this version, if it serves.

    ```console
    $ curl localhost:8000/v1/models/$NAME/versions/$VERSION
    ```
    """
    return _describe_status(require_named(get_classifier(request).store.require_model(), name, version))


@router.get("/models/{name}/metadata", summary="The model's signature", responses=_MODEL_ERRORS)
async def show_signature(request: Request, name: str) -> Metadata:
    """Return the names, types and shapes of what the model takes and returns.

    ```console
    $ curl localhost:8000/v1/models/$NAME/metadata
    ```
    """
    return _describe_signature(require_named(get_classifier(request).store.require_model(), name))


@router.get("/models/{name}/versions/{version}/metadata", summary="This version's signature", responses=_MODEL_ERRORS)
async def show_version_signature(request: Request, name: str, version: str) -> Metadata:
    """Return the names, types and shapes of what this version takes and returns, if it serves.

    ```console
    $ curl localhost:8000/v1/models/$NAME/versions/$VERSION/metadata
    ```
    """
    return _describe_signature(require_named(get_classifier(request).store.require_model(), name, version))


@router.post("/models/{name}:predict", summary="Classify images in JSON", **_PREDICT)
async def predict_instances(request: Request, name: str) -> Response:
    """Classify encoded images in base64, or arrays of the model's own size; all of them or none.

    The reply has the probabilities of all classes for each image. Their names are in `/model`. Other outputs of a
    version are left out, so that a new version never changes the form of the reply.

    ```console
    $ printf '{"instances": [{"b64": "%s"}]}' "$(base64 < image.png | tr -d '[:space:]')" > instances.json
    $ curl --json @instances.json localhost:8000/v1/models/$NAME:predict
    ```
    """
    return await _predict(request, name)


@router.post("/models/{name}/versions/{version}:predict", summary="Classify images by this version", **_PREDICT)
async def predict_instances_by_version(request: Request, name: str, version: str) -> Response:
    """Classify images, if this version serves. `instances.json` is the file from the previous example.

    ```console
    $ curl --json @instances.json localhost:8000/v1/models/$NAME/versions/$VERSION:predict
    ```
    """
    return await _predict(request, name, version)


async def _predict(request: Request, name: str, version: str | None = None) -> Response:
    classifier, settings = get_classifier(request), get_settings(request)
    # Not the model: a slow upload would keep it in memory after the next version has taken over.
    model_input = require_named(classifier.require_ready(), name, version).metadata.input
    body = await read_body(request, timeout_seconds=settings.upload_timeout_seconds)
    async with cancel_on_disconnect(request, timeout_seconds=settings.request_timeout_seconds):
        instances = await classifier.run_decoding(
            partial(parse_request, body, model_input=model_input, max_images=settings.max_files)
        )
        del body  # its images can wait for a decoder, and take nearly as much memory
        scores = await classifier.classify_all(instances.images)
    require_named(scores[0].model, name, version)  # the version may have changed meanwhile
    return _answer(instances, scores)


def _answer(instances: Instances, scores: Sequence[Scores]) -> Response:
    probabilities = np.stack([score.probabilities for score in scores]).tolist()  # (N, classes)
    if instances.columnar:
        return write_model(Outputs(outputs=probabilities))
    return write_model(Predictions(predictions=probabilities))


def _describe_status(model: Model) -> ModelStatus:
    version = VersionStatus(version=str(model.metadata.version))
    return ModelStatus(name=model.metadata.name, ready=True, model_version_status=[version])


def _describe_signature(model: Model) -> Metadata:
    metadata = model.metadata
    signature = SignatureDef(
        inputs={metadata.input.name: _describe(metadata.input, f"{SIGNATURE}_{metadata.input.name}:0")},
        outputs={metadata.output.name: _describe(metadata.output, "StatefulPartitionedCall:0")},
    )
    return Metadata(
        model_spec=ModelSpec(name=metadata.name, version=str(metadata.version)),
        metadata={"signature_def": SignatureDefs(signature_def={SIGNATURE: signature})},
    )


def _describe(tensor: TensorSpec, graph_name: str) -> TensorInfo:
    dims = [{"size": str(size), "name": ""} for size in (-1, *tensor.shape)]
    return TensorInfo(dtype=_DTYPES[tensor.dtype], tensor_shape={"dim": dims, "unknown_rank": False}, name=graph_name)
