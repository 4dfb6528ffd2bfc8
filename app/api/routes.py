"""The service's own endpoints: thin handlers that call the classifier.

`app.http.direct_route` calls them with the request alone, so the documentation states their parameters.
"""

import asyncio
from dataclasses import replace
from operator import attrgetter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app import errors
from app.api.schemas import METADATA_EXAMPLE, BatchReply, Classification, describe
from app.contract import ModelMetadata
from app.http.deadline import cancel_on_disconnect
from app.http.dependencies import get_cache, get_classifier, get_metrics, get_settings
from app.http.direct_route import DirectRoute
from app.http.problems import INTERNAL, KINDS, NAMED_ANSWER, REQUEST_ID_HEADER, Problem, describe_error, document_errors
from app.http.uploads import read_image, read_images
from app.telemetry.metrics import MEDIA_TYPE
from app.versions.model import Model

DEFAULT_TOP_K = 5

_UPLOAD_ERRORS = (
    errors.MalformedUploadError, errors.UploadTimeoutError, errors.UploadTooLargeError, errors.UploadsFullError,
    errors.TopKError, errors.CrossSiteError,
)  # fmt: skip
# Each endpoint has its own examples of these.
_ONE_IMAGE_ERRORS = (errors.UnsupportedUploadError, errors.UploadFieldError, errors.UploadCountError)
_SEVERAL_IMAGES_ERRORS = (
    replace(
        KINDS[errors.UnsupportedUploadError],
        example="send multipart/form-data with the images in the field 'files' (curl -F files=@a.png …); "
        "this has image/png",
    ),
    replace(KINDS[errors.UploadFieldError], example="the image belongs in the field 'files'; found: 'file'"),
    replace(KINDS[errors.UploadCountError], example="send at most 32 images in one request"),
)
# In a batch, these errors replace the result of their image.
_IMAGE_ERRORS = (
    errors.EmptyUploadError, errors.ImageTooLargeError, errors.UnsupportedImageError, errors.BrokenImageError
)  # fmt: skip
_SERVICE_ERRORS = (
    errors.QueueFullError, errors.InferenceError, INTERNAL, errors.NotReadyError, errors.DeadlineError
)  # fmt: skip

_FILE = {"type": "string", "format": "binary"}
_TOP_K = {
    "name": "top_k",
    "in": "query",
    "description": f"How many classes to return, up to all; by default {DEFAULT_TOP_K}, or all if there are fewer.",
    "schema": {"type": "integer", "minimum": 1},
}
_ONE_IMAGE: dict[str, Any] = {
    "parameters": [_TOP_K],
    "requestBody": {
        "required": True,
        "description": "The image's format is detected from its bytes, not from the content type.",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}},
            },
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
        },
    },
}
_SEVERAL_IMAGES: dict[str, Any] = {
    "parameters": [_TOP_K],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": _FILE}},
                },
            },
        },
    },
}

router = APIRouter(route_class=DirectRoute, responses=NAMED_ANSWER, generate_unique_id_function=attrgetter("name"))


@router.post(
    "/predict",
    tags=["classify"],
    summary="Classify one image",
    openapi_extra=_ONE_IMAGE,
    responses=document_errors(*_UPLOAD_ERRORS, *_ONE_IMAGE_ERRORS, *_IMAGE_ERRORS, *_SERVICE_ERRORS),
)
async def predict(request: Request) -> Classification:
    """Classify an image. Send it as the form field `file`, or as the body.

    A client that accepts `text/html` and does not name JSON gets a page, as browsers do. Some clients, such as Java's,
    accept it by default: make them send `Accept: application/json`.

    ```console
    $ curl -F file=@image.png localhost:8000/predict
    $ curl --data-binary @image.png -H 'Content-Type: image/png' 'localhost:8000/predict?top_k=3'
    ```
    """
    classifier, settings = get_classifier(request), get_settings(request)
    top_k = choose_top_k(read_top_k(request), classifier.require_ready())
    data = await read_image(request, timeout_seconds=settings.upload_timeout_seconds)
    async with cancel_on_disconnect(request, timeout_seconds=settings.request_timeout_seconds):
        scores = await classifier.classify(data)
    return describe(scores, top_k)


@router.post(
    "/predict/batch",
    tags=["classify"],
    summary="Classify several images",
    openapi_extra=_SEVERAL_IMAGES,
    responses=document_errors(*_UPLOAD_ERRORS, *_SEVERAL_IMAGES_ERRORS, *_SERVICE_ERRORS),
)
async def predict_batch(request: Request) -> BatchReply:
    """Classify several images. Send each of them as a form field `files`.

    A bad image does not affect the others: its entry in `results` is the problem that `/predict` would return.

    ```console
    $ curl -F files=@image.png -F files=@another.jpg 'localhost:8000/predict/batch?top_k=1'
    ```
    """
    classifier, settings = get_classifier(request), get_settings(request)
    top_k = choose_top_k(read_top_k(request), classifier.require_ready())
    images = await read_images(request, max_files=settings.max_files, timeout_seconds=settings.upload_timeout_seconds)

    async def answer(data: bytes) -> Classification | Problem:
        try:
            return describe(await classifier.classify(data), top_k)
        except errors.ServiceError as error:
            return describe_error(error, request.state.request_id)

    async with (
        cancel_on_disconnect(request, timeout_seconds=settings.request_timeout_seconds),
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(answer(image)) for image in images]
    return BatchReply(results=[task.result() for task in tasks])


@router.get(
    "/model",
    tags=["operate"],
    summary="Metadata of the model",
    response_model=ModelMetadata,
    responses={
        200: {"headers": REQUEST_ID_HEADER, "content": {"application/json": {"example": METADATA_EXAMPLE}}},
        **document_errors(errors.NotReadyError),
    },
)
async def describe_model(request: Request) -> Response:
    """Return the metadata of the version that serves: classes, accuracy, training recipe, data, digests.

    ```console
    $ curl localhost:8000/model
    ```
    """
    metadata = get_classifier(request).store.require_model().metadata

    async def write() -> bytes:
        return metadata.model_dump_json().encode()

    body = await get_cache(request).get(("model", metadata.name, metadata.version), write)
    return Response(body, media_type="application/json")


@router.get("/metrics", tags=["operate"], summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def show_metrics(request: Request) -> Response:
    """Return all counters and measurements in Prometheus's text format; they can be a second old.

    ```console
    $ curl localhost:8000/metrics
    ```
    """

    async def render() -> bytes:
        return get_metrics(request).render()

    return Response(await get_cache(request).get("metrics", render), media_type=MEDIA_TYPE)


def read_top_k(request: Request) -> int | None:
    """Return `top_k` from a request's query; None if it is absent.

    Raises:
        TopKError: it is not a whole number.
    """
    asked = request.query_params.get("top_k") if request.scope["query_string"] else None
    if asked is None:
        return None
    if not (asked.isascii() and asked.removeprefix("-").isdecimal()):  # `int` accepts "+3", "1_0" and other digits, too
        raise errors.TopKError(f"top_k={asked[:20]!r} is not a whole number")
    return int(asked[:20])  # more than any model has classes


def choose_top_k(asked: int | None, model: Model) -> int:
    """Return the number of classes to return.

    Raises:
        TopKError: `asked` is not a number of classes that `model` has.
    """
    if asked is None:
        return min(DEFAULT_TOP_K, model.num_classes)
    most = model.num_classes
    if not 1 <= asked <= most:
        raise errors.TopKError(f"top_k={str(asked)[:20]}, but the model has {most} classes; send 1 to {most}")
    return asked
