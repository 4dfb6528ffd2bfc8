"""Errors as HTTP answers: RFC 9457 problem details, and the one table that maps errors to statuses.

The handlers answer from the table and the OpenAPI document is written from it, so the two always agree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors
from app.http.paths import get_path, get_root
from app.http.rejection_delay import RejectionDelay
from app.telemetry.timings import note_problem

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnected; only in logs and metrics


class Problem(BaseModel):
    """Why a request failed (RFC 9457). `code` is for programs; `detail` tells people what to do."""

    type: str = Field("about:blank", description="Always `about:blank`; see `code` for the kind of error.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this request, and what to do about it.")
    code: str = Field(description="The kind of error; stable.")
    request_id: str | None = Field(None, description="Identifies this request in the service's log.")
    retry_after_seconds: int | None = Field(None, description="How long to wait before trying again.")


# How headers of answers are documented.
REQUEST_ID_HEADER = {
    "X-Request-ID": {"description": "Identifies the request in the service's log.", "schema": {"type": "string"}}
}
RETRY_HEADER = {"Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}}
_CHALLENGE_HEADER = {"WWW-Authenticate": {"description": "How to send an API key.", "schema": {"type": "string"}}}
# What a router adds to the documentation of its successful answers.
NAMED_ANSWER: dict[int | str, dict[str, Any]] = {200: {"headers": REQUEST_ID_HEADER}}

_SCHEMA = {"$ref": "#/components/schemas/Problem"}
# A problem under /v1 and /v2.
_PROTOCOL_SCHEMA = {
    "allOf": [_SCHEMA],
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "The detail again, where clients of the protocol look for it."}
    },
}
# Documents the problems that every endpoint of a protocol can return. Without it FastAPI would document its own 422.
ANY_PROTOCOL_PROBLEM = {
    "description": "Any problem.",
    "headers": REQUEST_ID_HEADER,
    "content": {MEDIA_TYPE: {"schema": _PROTOCOL_SCHEMA}},
}


@dataclass(frozen=True)
class Kind:
    """How one kind of error looks over HTTP; the example is shown in the API's documentation."""

    status: int
    code: str
    example: str


_STATUSES_AND_EXAMPLES: dict[type[errors.ServiceError], tuple[int, str]] = {
    errors.MissingKeyError: (401, "send a key of this service as 'Authorization: Bearer <key>'"),
    errors.UnknownHostError: (
        400,
        "this service does not accept the host name 'example.org'; its operator can add it to APP_ALLOWED_HOSTS",
    ),
    errors.CrossSiteError: (
        403,
        "pages of https://example.org may not use this service; its operator can add that origin to APP_CORS_ORIGINS",
    ),
    errors.EmptyUploadError: (400, "the file is empty; send the image's bytes"),
    errors.MalformedUploadError: (400, "the form can't be parsed: its content type names no boundary"),
    errors.TensorError: (400, "'images' is UINT8 with the shape [1 to 32, 64, 64, 3]; sent: FP32 [1]"),
    errors.UnknownModelError: (404, "'flowers' version 2 is not being served; 'flowers' version 3 is"),
    errors.UploadTimeoutError: (408, "the body did not arrive within 30 s"),
    errors.UploadTooLargeError: (413, "the body has more than 16,777,216 bytes; send a smaller image"),
    errors.ImageTooLargeError: (
        413,
        "the image has 30000 x 30000 pixels; make it smaller: at most 50,000,000 are decoded",
    ),
    errors.UnsupportedUploadError: (
        415,
        (
            "send multipart/form-data with the image in the field 'file' (curl -F file=@image.png …), or the image as "
            "the body with its own content type, such as image/png; this has text/plain"
        ),
    ),
    errors.UnsupportedImageError: (
        415,
        "the file is not an image in a supported format; save it as one of: JPEG, PNG",
    ),
    errors.BrokenImageError: (422, "the image's header is damaged or cut short; send the whole file"),
    errors.UploadFieldError: (422, "the image belongs in the field 'file'; found: 'picture'"),
    errors.UploadCountError: (422, "send one image; /predict/batch takes several"),
    errors.TopKError: (422, "top_k=50, but the model has 10 classes; send 1 to 10"),
    errors.QueueFullError: (429, "256 images are waiting already; try again in 2 s"),
    errors.UploadsFullError: (429, "other uploads use the 268,435,456 bytes reserved for them; try again in 4 s"),
    errors.ClientGoneError: (CLIENT_CLOSED_REQUEST, "the client disconnected before its answer"),
    errors.InferenceError: (500, "the model failed on this image; the service's log has the reason"),
    errors.NotReadyError: (503, "no model serves: loading version 1"),
    errors.DeadlineError: (504, "no answer within 10 s; the service is busy, try again later"),
}
KINDS = {error: Kind(status, error.code, example) for error, (status, example) in _STATUSES_AND_EXAMPLES.items()}
# The other problems that clients can get: internal errors, and errors of the framework.
INTERNAL = Kind(500, "internal", "the service failed; its log has the reason under this request id")
NOT_FOUND = Kind(404, "not_found", "GET /nowhere: Not Found; see /docs for the paths that exist")
METHOD_NOT_ALLOWED = Kind(405, "method_not_allowed", "GET /predict: send POST; see /docs for the paths that exist")
# The application never sees these: see `app.server.request_limits` and `app.server.connection`.
MALFORMED_REQUEST = Kind(400, "malformed_request", "this is not a valid HTTP/1.1 request")
HEADER_TIMEOUT = Kind(408, "header_timeout", "the request's headers did not arrive in time")
HEADERS_TOO_LARGE = Kind(431, "headers_too_large", "at most 100 headers with 32,768 bytes in total are accepted")
# Every endpoint can return these, so none documents them.
COMMON_KINDS = (
    MALFORMED_REQUEST,
    KINDS[errors.UnknownHostError],
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    HEADER_TIMEOUT,
    HEADERS_TOO_LARGE,
)


Write = Callable[[Request, Problem, Mapping[str, str]], Response]
"""Writes a problem, with these headers, for the client that made the request."""


def describe_error(error: errors.ServiceError, request_id: str | None) -> Problem:
    """Make the problem that answers `error`, and note it in the request's trace."""
    retry_after = error.retry_after_seconds if isinstance(error, errors.RetryableError) else None
    kind = KINDS[type(error)]
    note_problem(kind.code)
    return make_problem(kind, str(error), request_id, retry_after)


def document_errors(
    *kinds: type[errors.ServiceError] | Kind, protocol: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Write the OpenAPI responses for these errors: one for each status, with one example for each kind.

    Set `protocol` for calls under /v1 and /v2.
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
                "content": {MEDIA_TYPE: {"schema": _PROTOCOL_SCHEMA if protocol else _SCHEMA, "examples": {}}},
            },
        )
        response["content"][MEDIA_TYPE]["examples"][row.code] = {"value": _dump(problem, protocol=protocol)}
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
    """Make a problem of this kind for one request."""
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


def _dump(problem: Problem, *, protocol: bool) -> dict[str, Any]:
    content = problem.model_dump(exclude_none=True)
    return {**content, "error": problem.detail} if protocol else content


def write_json(request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
    """Write a problem as JSON."""
    content = _dump(problem, protocol=speaks_protocol(request.scope))
    return JSONResponse(content, problem.status, headers, media_type=MEDIA_TYPE)


def speaks_protocol(scope: Scope) -> bool:
    """Return whether a request belongs to an inference protocol, whose clients expect the member `error`."""
    return f"{get_path(scope)}/".startswith(("/v1/", "/v2/"))


class ErrorAnswers:
    """Answers all errors, including the framework's, with problems.

    It takes the place of two layers of Starlette's, ExceptionMiddleware and ServerErrorMiddleware.
    """

    def __init__(self, app: ASGIApp, *, write: Write = write_json) -> None:
        """Wrap `app`; `write` renders the problems."""
        self._app = app
        self._write = write
        self._delay = RejectionDelay()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. The server logs the traceback of a fault, and `app.http.access_log` counts it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except errors.ServiceError as error:
            response = await self._answer_error(Request(scope), error)
            await response(scope, receive, send)
        except HTTPException as error:
            await self._answer_http_exception(Request(scope), error)(scope, receive, send)
        except Exception:
            if not scope["state"].get("has_failed"):  # otherwise another ErrorAnswers inside has answered
                scope["state"]["has_failed"] = True
                problem = make_problem(INTERNAL, INTERNAL.example, scope["state"]["request_id"])
                await self._write(Request(scope), problem, {})(scope, receive, send)
            raise

    async def _answer_error(self, request: Request, error: errors.ServiceError) -> Response:
        if isinstance(error, errors.BusyError):
            error.__traceback__ = None  # its frames hold the body
            await self._delay.wait()
        problem = describe_error(error, request.state.request_id)
        headers = {}
        if problem.retry_after_seconds is not None:
            headers["Retry-After"] = str(problem.retry_after_seconds)
        if isinstance(error, errors.UploadTimeoutError):
            headers["Connection"] = "close"  # otherwise the rest of the body would still arrive
        if isinstance(error, errors.UnsupportedUploadError):
            headers["Accept-Encoding"] = "gzip, deflate"  # RFC 9110, 12.5.3
        answer = self._write(request, problem, headers)
        if isinstance(error, errors.MissingKeyError):
            answer.headers.append("WWW-Authenticate", 'Bearer realm="classifier"')
            # Makes browsers ask for the key when people open a page. For fetch requests, the page itself asks.
            # A separate header, because Chromium reads one scheme per header.
            if request.headers.get("sec-fetch-dest") != "empty":
                answer.headers.append("WWW-Authenticate", 'Basic realm="classifier", charset="UTF-8"')
        return answer

    def _answer_http_exception(self, request: Request, error: HTTPException) -> Response:
        """Answer the framework's errors: path not found, method not allowed."""
        title = _name_status(error.status_code)
        kind = Kind(error.status_code, title.lower().replace(" ", "_"), "")
        headers = dict(error.headers or {})
        allowed = " or ".join(sorted(headers.get("Allow", "").split(", ")))
        reason = f"send {allowed}" if allowed else error.detail
        docs = f"{get_root(request.scope)}/docs"
        detail = f"{request.method} {request.url.path[:100]}: {reason}; see {docs} for the paths that exist"
        note_problem(kind.code)
        return self._write(request, make_problem(kind, detail, request.state.request_id), headers)
