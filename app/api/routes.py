"""The API: thin handlers, from a request to a reply by way of the classifier."""

import asyncio
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from app import errors
from app.api.schemas import METADATA_EXAMPLE, BatchReply, Classification
from app.contract import ModelMetadata
from app.http.deadline import work_while_wanted
from app.http.dependencies import ClassifierDep, MetricsDep, SettingsDep, get_classifier, get_settings
from app.http.problems import INTERNAL, KINDS, NAMED_ANSWER, REQUEST_ID_HEADER, Problem, describe_error, document_errors
from app.http.uploads import read_image, read_images
from app.telemetry.metrics import MEDIA_TYPE
from app.versions.model import Model

DEFAULT_TOP_K = 5

_UPLOAD_ERRORS = (
    errors.MalformedUploadError, errors.UploadTimeoutError, errors.UploadTooLargeError, errors.UploadsFullError,
    errors.TopKError, errors.CrossSiteError,
)  # fmt: skip
# Each call has words of its own for these.
_ONE_IMAGE_ERRORS = (errors.UnsupportedUploadError, errors.UploadFieldError, errors.UploadCountError)
_SEVERAL_IMAGES_ERRORS = (
    replace(
        KINDS[errors.UnsupportedUploadError],
        example="send multipart/form-data with the images in the field 'files' (curl -F files=@a.png …); "
        "this has image/png",
    ),
    replace(KINDS[errors.UploadFieldError], example="the image belongs in the field 'files'; found: 'file'"),
    replace(KINDS[errors.UploadCountError], example="send at most 32 images at once"),
)
# In a batch these stand in their image's place.
_IMAGE_ERRORS = (
    errors.EmptyUploadError, errors.ImageTooLargeError, errors.UnsupportedImageError, errors.BrokenImageError
)  # fmt: skip
_SERVICE_ERRORS = (
    errors.QueueFullError, errors.InferenceError, INTERNAL, errors.NotReadyError, errors.DeadlineError
)  # fmt: skip

_FILE = {"type": "string", "format": "binary"}
_ONE_IMAGE = {
    "requestBody": {
        "required": True,
        "description": "JPEG, PNG, WebP, GIF, BMP or AVIF; told from the bytes, whatever the content type says.",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}},
            },
            "image/*": {"schema": _FILE},
        },
    }
}
_SEVERAL_IMAGES = {
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
    }
}


class DirectRoute(APIRoute):
    """A route that FastAPI documents, and that calls its endpoint without FastAPI's help.

    To inject a few values, and to validate a reply that this service itself made, takes FastAPI longer than all else
    that a small image needs before the model.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what the endpoint returns, as JSON."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        classifier, settings = await get_classifier(request), await get_settings(request)
        reply: BaseModel = await self.endpoint(request, classifier, settings, read_top_k(request))
        response = Response(reply.model_dump_json(exclude_none=True), media_type="application/json")
        await response(scope, receive, send)


router = APIRouter(responses=NAMED_ANSWER)
direct_router = APIRouter(route_class=DirectRoute, responses=NAMED_ANSWER)

TopK = Annotated[
    int | None,
    Query(
        ge=1,
        description=f"How many classes to name, up to all. Unless set: {DEFAULT_TOP_K}, or all if they are fewer.",
    ),
]


@direct_router.post(
    "/predict",
    tags=["classify"],
    summary="Classify one image",
    openapi_extra=_ONE_IMAGE,
    responses=document_errors(*_UPLOAD_ERRORS, *_ONE_IMAGE_ERRORS, *_IMAGE_ERRORS, *_SERVICE_ERRORS),
)
async def predict(
    request: Request, classifier: ClassifierDep, settings: SettingsDep, top_k: TopK = None
) -> Classification:
    """Say what an image shows. Send it as the form field `file`, or as the body with its own `image/…` content type.

    A client that accepts `text/html` and does not name JSON gets a page, as browsers do. Some clients, such as Java's,
    accept it unless told otherwise: send `Accept: application/json`.

    ```console
    $ curl -F file=@image.png localhost:8000/predict
    $ curl --data-binary @image.png -H 'Content-Type: image/png' 'localhost:8000/predict?top_k=3'
    ```
    """
    top_k = choose_top_k(top_k, classifier.require_ready())
    data = await read_image(request, timeout_seconds=settings.upload_timeout_seconds)
    async with work_while_wanted(request, timeout_seconds=settings.request_timeout_seconds):
        scores = await classifier.classify(data)
    return Classification.of(scores, top_k)


@direct_router.post(
    "/predict/batch",
    tags=["classify"],
    summary="Classify several images",
    openapi_extra=_SEVERAL_IMAGES,
    responses=document_errors(*_UPLOAD_ERRORS, *_SEVERAL_IMAGES_ERRORS, *_SERVICE_ERRORS),
)
async def predict_batch(
    request: Request, classifier: ClassifierDep, settings: SettingsDep, top_k: TopK = None
) -> BatchReply:
    """Say what each of several images shows. Send them as the form field `files`, as often as there are images.

    One bad image spoils no other: its place in `results` holds the problem that `/predict` would have answered.

    ```console
    $ curl -F files=@image.png -F files=@another.jpg 'localhost:8000/predict/batch?top_k=1'
    ```
    """
    top_k = choose_top_k(top_k, classifier.require_ready())
    images = await read_images(request, max_files=settings.max_files, timeout_seconds=settings.upload_timeout_seconds)

    async def answer(data: bytes) -> Classification | Problem:
        try:
            return Classification.of(await classifier.classify(data), top_k)
        except errors.ServiceError as error:
            return describe_error(error, request.state.request_id)

    async with (
        work_while_wanted(request, timeout_seconds=settings.request_timeout_seconds),
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(answer(image)) for image in images]
    return BatchReply(results=[task.result() for task in tasks])


@router.get(
    "/model",
    tags=["operate"],
    summary="What is known of the model",
    responses={
        200: {"headers": REQUEST_ID_HEADER, "content": {"application/json": {"example": METADATA_EXAMPLE}}},
        **document_errors(errors.NotReadyError),
    },
)
async def describe_model(classifier: ClassifierDep) -> ModelMetadata:
    """Give the metadata of the version that serves: classes, accuracy, training recipe, data, digests.

    ```console
    $ curl localhost:8000/model
    ```
    """
    return classifier.store.require_model().metadata


@router.get("/metrics", tags=["operate"], summary="Counts and times for Prometheus", response_class=PlainTextResponse)
async def show_metrics(metrics: MetricsDep) -> Response:
    """Everything that is counted and measured, in Prometheus's text format.

    ```console
    $ curl localhost:8000/metrics
    ```
    """
    return Response(metrics.render(), media_type=MEDIA_TYPE)


def read_top_k(request: Request) -> int | None:
    """Return how many classes a request's query asks for; None if it does not say.

    Raises:
        TopKError: it asks for something else than a whole number.
    """
    asked = request.query_params.get("top_k") if request.scope["query_string"] else None
    if asked is None:
        return None
    if not (asked.isascii() and asked.removeprefix("-").isdecimal()):  # `int` takes "+3", "1_0" and other digits, too
        raise errors.TopKError(f"top_k={asked[:20]!r} is not a whole number")
    return int(asked[:20])  # more than any model has classes


def choose_top_k(asked: int | None, model: Model) -> int:
    """Return how many classes to name.

    Raises:
        TopKError: none are asked for, or more than `model` has.
    """
    if asked is None:
        return min(DEFAULT_TOP_K, model.num_classes)
    most = model.num_classes
    if not 1 <= asked <= most:
        raise errors.TopKError(f"top_k={str(asked)[:20]}, but the model has {most} classes; send 1 to {most}")
    return asked
