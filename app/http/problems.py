"""Errors as HTTP answers: RFC 9457 problem details, and the one table that says which error is which.

The handlers answer from the table and the OpenAPI document is written from it, so they can't drift.
"""

import asyncio
import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app import errors
from app.images.decode import FORMAT_NAMES
from app.telemetry.timings import note_problem

MEDIA_TYPE = "application/problem+json"
# The longest delay before an overloaded service says so.
LONGEST_REFUSAL_SECONDS = 1.0
CLIENT_CLOSED_REQUEST = 499  # nginx's word for a client that left; nobody receives it, logs and metrics count it


class Problem(BaseModel):
    """Why a request failed, as RFC 9457 has it. `code` tells programs the kind, `detail` tells people what to do."""

    type: str = Field("about:blank", description="Always `about:blank`: `code` tells the kind.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this very request, and what to do.")
    code: str = Field(description="The kind of error, stable.")
    request_id: str | None = Field(None, description="Names this request in the service's log.")
    retry_after_seconds: int | None = Field(None, description="When the same request is worth another try.")


# How headers of answers are documented.
REQUEST_ID_HEADER = {
    "X-Request-ID": {"description": "Names the request in the service's log.", "schema": {"type": "string"}}
}
RETRY_HEADER = {"Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}}
_CHALLENGE_HEADER = {"WWW-Authenticate": {"description": "How a key can be sent.", "schema": {"type": "string"}}}
# What a router adds to its calls' documentation: the answer that is no error.
NAMED_ANSWER: dict[int | str, dict[str, Any]] = {200: {"headers": REQUEST_ID_HEADER}}

_SCHEMA = {"$ref": "#/components/schemas/Problem"}
# A problem under /v2.
_INFERENCE_SCHEMA = {
    "allOf": [_SCHEMA],
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "string",
            "description": "The detail again, where clients of the Open Inference Protocol look for it.",
        }
    },
}
# The response to document where any problem can be met; without it FastAPI would document one that it never gives.
ANY_INFERENCE_PROBLEM = {
    "description": "What any request can meet.",
    "headers": REQUEST_ID_HEADER,
    "content": {MEDIA_TYPE: {"schema": _INFERENCE_SCHEMA}},
}


@dataclass(frozen=True)
class Kind:
    """How one kind of error looks over HTTP; the example stands in the API's documentation."""

    status: int
    code: str
    example: str


KINDS: dict[type[errors.ServiceError], Kind] = {
    errors.MissingKeyError: Kind(401, "missing_key", "send a key of this service as 'Authorization: Bearer <key>'"),
    errors.EmptyUploadError: Kind(400, "empty_upload", "the file is empty; send the image's bytes"),
    errors.MalformedUploadError: Kind(
        400, "malformed_upload", "the multipart body can't be parsed: its content type names no boundary"
    ),
    errors.TensorError: Kind(
        400, "wrong_tensor", "'images' is UINT8 with the shape [1 to 32, 64, 64, 3]; sent: FP32 [1]"
    ),
    errors.UnknownModelError: Kind(
        404, "unknown_model", "'flowers' version 2 does not serve here; 'flowers' version 3 does"
    ),
    errors.UploadTimeoutError: Kind(408, "upload_timeout", "the body did not arrive within 30 s"),
    errors.UploadTooLargeError: Kind(
        413, "upload_too_large", "the body has more than 16,777,216 bytes; send a smaller image"
    ),
    errors.ImageTooLargeError: Kind(
        413,
        "image_too_large",
        "the image has 30000 x 30000 pixels; make it smaller: of its kind at most 50,000,000 are decoded",
    ),
    errors.UnsupportedUploadError: Kind(
        415,
        "unsupported_upload",
        "send multipart/form-data with the image in the field 'file' (curl -F file=@image.png …), or the image as the "
        "body with its own content type, such as image/png; this has text/plain",
    ),
    errors.UnsupportedImageError: Kind(
        415,
        "unsupported_image",
        f"the file is no image of a kind that is read; save it as one of them: {', '.join(FORMAT_NAMES)}",
    ),
    errors.BrokenImageError: Kind(
        422, "broken_image", "the image's header is damaged or cut short; send the whole file"
    ),
    errors.UploadFieldError: Kind(422, "wrong_field", "the image belongs in the field 'file'; found: 'picture'"),
    errors.UploadCountError: Kind(422, "too_many_images", "send one image; /predict/batch takes several"),
    errors.TopKError: Kind(422, "top_k_out_of_range", "top_k=50, but the model tells 10 classes apart; send 1 to 10"),
    errors.QueueFullError: Kind(429, "queue_full", "256 images are waiting already; try again in 2 s"),
    errors.UploadsFullError: Kind(
        429, "uploads_full", "other uploads use the 268,435,456 bytes reserved for them; try again in 4 s"
    ),
    errors.ClientGoneError: Kind(CLIENT_CLOSED_REQUEST, "client_gone", "the client left before its answer"),
    errors.InferenceError: Kind(
        500, "inference_failed", "the model failed on this image; the service's log has the reason"
    ),
    errors.NotReadyError: Kind(503, "not_ready", "no model serves: loading version 1"),
    errors.DeadlineError: Kind(504, "deadline_passed", "no answer within 10 s; the service is busy, try again later"),
}
# The other problems that clients can meet: a fault in this service, and what the framework finds.
INTERNAL = Kind(500, "internal", "the service failed; its log has the reason under this request id")
NOT_FOUND = Kind(404, "not_found", "GET /nowhere: Not Found; /docs lists what there is")
METHOD_NOT_ALLOWED = Kind(405, "method_not_allowed", "GET /predict: send POST; /docs lists what there is")
# What never becomes a request that the application sees: see `app.server.request_limits` and `app.server.connection`.
MALFORMED_REQUEST = Kind(400, "malformed_request", "what came is no HTTP/1.1 request")
HEADER_TIMEOUT = Kind(408, "header_timeout", "the request's headers did not arrive in time")
HEADERS_TOO_LARGE = Kind(431, "headers_too_large", "at most 100 headers, of 32,768 bytes together, are taken")
# Those that belong to no call.
COMMON_KINDS = (MALFORMED_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, HEADER_TIMEOUT, HEADERS_TOO_LARGE)


def describe_error(error: errors.ServiceError, request_id: str | None) -> Problem:
    """Say what `error` is over HTTP, and note it, since it is going to be answered."""
    retry_after = error.retry_after_seconds if isinstance(error, errors.RetryableError) else None
    kind = KINDS[type(error)]
    note_problem(kind.code)
    return make_problem(kind, str(error), request_id, retry_after)


def install_handlers(app: FastAPI) -> None:
    """Make every error of `app`, the framework's own included, answer with problem details."""
    app.exception_handler(errors.ServiceError)(answer_error)
    app.exception_handler(HTTPException)(_answer_http_exception)
    app.exception_handler(Exception)(_answer_fault)


def document_errors(
    *kinds: type[errors.ServiceError] | Kind, inference: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Write the OpenAPI responses for these errors: one for each status, one example for each kind.

    `inference` is for calls under /v2.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        row = kind if isinstance(kind, Kind) else KINDS[kind]
        retry_after = 2 if isinstance(kind, type) and issubclass(kind, errors.RetryableError) else None
        problem = make_problem(row, row.example, "7f3c0a52e1d94b6c", retry_after)
        response = responses.setdefault(
            row.status,
            {
                "description": problem.title,
                "headers": dict(REQUEST_ID_HEADER),
                "content": {MEDIA_TYPE: {"schema": _INFERENCE_SCHEMA if inference else _SCHEMA, "examples": {}}},
            },
        )
        response["content"][MEDIA_TYPE]["examples"][row.code] = {"value": _write(problem, inference=inference)}
        if retry_after:
            response["headers"] |= RETRY_HEADER
        if kind is errors.MissingKeyError:
            response["headers"] |= _CHALLENGE_HEADER
    return dict(sorted(responses.items(), key=str))


def tabulate_kinds(*kinds: Kind) -> str:
    """Write a table of these errors in Markdown."""
    rows = (f"| {kind.status} | `{kind.code}` | {kind.example} |\n" for kind in kinds)
    return f"| status | `code` | for example |\n|---|---|---|\n{''.join(rows)}"


def make_problem(kind: Kind, detail: str, request_id: str | None, retry_after_seconds: int | None = None) -> Problem:
    """Say what `kind` is over HTTP, of one request."""
    return Problem(
        title=_name_status(kind.status),
        status=kind.status,
        detail=detail,
        code=kind.code,
        request_id=request_id,
        retry_after_seconds=retry_after_seconds,
    )


def _name_status(status: int) -> str:
    return "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase


def _write(problem: Problem, *, inference: bool) -> dict[str, Any]:
    content = problem.model_dump(exclude_none=True)
    return {**content, "error": problem.detail} if inference else content


def _answer(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    content = _write(problem, inference=is_inference(request.scope))
    return JSONResponse(content, problem.status, headers, media_type=MEDIA_TYPE)


def is_inference(scope: Scope) -> bool:
    """Whether a request speaks the Open Inference Protocol; the root path is what a proxy has put before its path."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return f"{path}/".startswith("/v2/")


async def answer_error(request: Request, error: errors.ServiceError) -> JSONResponse:
    """Answer what went wrong with `request`."""
    if isinstance(error, errors.BusyError):
        error.__traceback__ = None  # its frames hold the body
        # Clients that retry immediately must not use up the event loop. The random delay also spreads the retries of
        # clients rejected together, which `Retry-After`, in whole seconds, can't.
        await asyncio.sleep(random.uniform(0, LONGEST_REFUSAL_SECONDS))  # noqa: S311 -- nothing secret
    problem = describe_error(error, request.state.request_id)
    headers = {}
    if problem.retry_after_seconds is not None:
        headers["Retry-After"] = str(problem.retry_after_seconds)
    if isinstance(error, errors.UploadTimeoutError):
        headers["Connection"] = "close"  # the rest of the body would go on trickling in
    answer = _answer(request, problem, headers)
    if isinstance(error, errors.MissingKeyError):
        answer.headers.append("WWW-Authenticate", 'Bearer realm="classifier"')
        # What a browser asks a person for, the key as the password, so that the pages work too, and what they are made
        # of. Not upon a fetch: there the page asks by itself. A line of its own, as Chromium reads one scheme a line.
        if request.headers.get("sec-fetch-dest") != "empty":
            answer.headers.append("WWW-Authenticate", 'Basic realm="classifier", charset="UTF-8"')
    return answer


async def _answer_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    """Answer what the framework raises itself: no such path, method not allowed."""
    title = _name_status(error.status_code)
    kind = Kind(error.status_code, title.lower().replace(" ", "_"), "")
    headers = dict(error.headers or {})
    allowed = " or ".join(sorted(headers.get("Allow", "").split(", ")))
    reason = f"send {allowed}" if allowed else error.detail
    detail = f"{request.method} {request.url.path[:100]}: {reason}; /docs lists what there is"
    note_problem(kind.code)
    return _answer(request, make_problem(kind, detail, request.state.request_id), headers)


async def _answer_fault(request: Request, error: Exception) -> JSONResponse:
    """Answer a fault of this service, which `app.http.access_log` has noted.

    The server logs its traceback; the client gets the id to find it by.
    """
    del error
    return _answer(request, make_problem(INTERNAL, INTERNAL.example, request.state.request_id))
