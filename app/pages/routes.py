"""The pages for people: the form at `/`, its answers, the model card, the API's documentation.

They say what the API says, as HTML: the same handlers refuse, the same classifier answers. Nothing in them is fetched
from elsewhere, and their content policy allows no inline script or style. Without JavaScript the form works by itself.
"""

import time
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from app.api.routes import choose_top_k, read_top_k
from app.api.schemas import Classification
from app.http.deadline import work_while_wanted
from app.http.middleware import find_header
from app.http.paths import get_root
from app.http.problems import Problem, speaks_protocol, write_json
from app.http.uploads import read_image
from app.images.decode import FORMAT_NAMES, encode_png
from app.inference.classifier import Classifier
from app.pages.card import CARD_FILE, read_card_file, render_markdown
from app.pages.render import HEADERS, STATIC, format_json, render
from app.pages.samples import find_sample, list_samples
from app.settings import Settings

_PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
# What a person reads first; the problem's own detail follows. Any other code is headed by its status in words.
HEADINGS = {
    "empty_upload": "The file is empty",
    "upload_timeout": "The upload took too long",
    "upload_too_large": "The file is too large",
    "image_too_large": "The picture has too many pixels",
    "unsupported_image": "This is not a picture that is read here",
    "broken_image": "The picture is damaged or cut short",
    "wrong_field": "No picture was sent",
    "too_many_images": "Too many pictures were sent",
    "queue_full": "The service is busy",
    "uploads_full": "The service is busy",
    "not_ready": "The model is not ready",
    "deadline_passed": "The service took too long",
    "inference_failed": "The model failed on this picture",
    "internal": "The service failed",
    "missing_key": "An API key is needed",
    "not_found": "There is no such page",
}


def install_page(app: FastAPI) -> None:
    """Add the pages to `app`, and let its errors answer browsers in HTML. After the API's routes and its errors."""
    swagger = files("fastapi_offline") / "static"
    # Before the API's own route of the same path; the others after, since every request passes those before its own.
    app.router.routes[:0] = [
        _BrowserPage("/predict", show_prediction, methods=["POST"]),
        _BrowserPage("/predict", lead_home),
    ]
    app.router.routes.extend(
        [
            _Page("/", show_home),
            _Page("/model/card", lead_to_card),
            _Page("/model/card/", show_card),
            _Page("/model/card/{name}", show_plot),
            _Page("/samples/{name}", show_sample),
            _Page("/docs", show_documentation),
            _Folder("/docs/assets", _Assets(directory=str(swagger))),
            _Folder("/web", _Assets(directory=STATIC)),
        ]
    )


def show_home(request: Request) -> HTMLResponse:
    """Show the form, the samples, and what the model is."""
    model = request.app.state.classifier.store.model
    samples = list_samples(model.folder) if model else []
    max_bytes = request.app.state.settings.max_upload_bytes
    return render(request, "home.html", model=model, samples=samples, formats=FORMAT_NAMES, max_bytes=max_bytes)


async def show_prediction(request: Request) -> HTMLResponse:
    """Answer the form: what `/predict` would, and the pixels that the model saw."""
    classifier: Classifier = request.app.state.classifier
    settings: Settings = request.app.state.settings
    top_k = choose_top_k(read_top_k(request), classifier.require_ready())
    data = await read_image(request, timeout_seconds=settings.upload_timeout_seconds)
    begun = time.perf_counter()
    async with work_while_wanted(request, timeout_seconds=settings.request_timeout_seconds):
        scores = await classifier.classify(data)
    seconds = time.perf_counter() - begun
    reply = Classification.of(scores, top_k)
    return render(
        request,
        "result.html",
        reply=reply,
        json=format_json(reply.model_dump(mode="json")),
        pixels="data:image/png;base64," + b64encode(encode_png(scores.image)).decode(),
        size=scores.model.image_size,
        calibration_error=scores.model.metadata.metrics.calibration_error,
        seconds=seconds,
        url=f"{request.base_url}predict",
        keyed=bool(settings.api_keys),
    )


def lead_home(request: Request) -> Response:
    """Lead whoever asks for the answer's address again, without a picture, to the form."""
    return RedirectResponse(f"{get_root(request.scope)}/", 303)


def show_card(request: Request) -> HTMLResponse:
    """Show the card of the version that serves."""
    model = request.app.state.classifier.store.require_model()
    text = read_card_file(model, CARD_FILE)
    if text is None:
        raise HTTPException(404, "this version has no card")
    return render(request, "card.html", model=model, card=Markup(render_markdown(text.decode(errors="replace"))))  # noqa: S704 -- made by the Markdown parser, which lets no HTML of the card's pass


def lead_to_card(request: Request) -> Response:
    """Lead to the address of the card, whose slash makes the card's own links to its plots work."""
    return RedirectResponse(f"{get_root(request.scope)}/model/card/")


def show_plot(request: Request) -> Response:
    """Give one of the card's pictures."""
    name = request.path_params["name"]
    media_type = _PICTURE_TYPES.get(Path(name).suffix)
    data = read_card_file(request.app.state.classifier.store.require_model(), name) if media_type else None
    if data is None:
        raise HTTPException(404, "the card has no such picture")
    return Response(data, media_type=media_type, headers=HEADERS)


def show_sample(request: Request) -> Response:
    """Give one of the sample images."""
    model = request.app.state.classifier.store.require_model()
    path = find_sample(model.folder, request.path_params["name"])
    if path is None:
        raise HTTPException(404, "there is no such sample")
    return Response(path.read_bytes(), media_type=_PICTURE_TYPES[path.suffix], headers=HEADERS)


async def show_documentation(request: Request) -> HTMLResponse:
    """Show the API's documentation, by Swagger UI from an installed package."""
    return render(request, "docs.html", title=request.app.title)


def wants_html(scope: Scope) -> bool:
    """Whether a client asks for HTML by name: browsers do where they show the answer; programs ask for anything."""
    accept = find_header(scope, b"accept").lower() if scope["type"] == "http" else ""
    return "text/html" in accept and "json" not in accept


class _Named(BaseRoute):
    """Tells the log and the metrics which route it was, as FastAPI's own routes do."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, "route": self} if match != Match.NONE else child


class _Page(_Named, Route):
    """One page, or one file."""


class _Folder(_Named, Mount):
    """A folder of files, which count together."""


class _BrowserPage(_Page):
    """Matches what asks for HTML; anything else goes on to the API's route of the same path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if wants_html(scope) else (Match.NONE, {})


class _Assets(StaticFiles):
    """Files that a browser asks after every time, so that an update never meets an old half of the page."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Always whole: Starlette refuses a range that it can't give with a body that is no problem document.
        headers = [header for header in scope["headers"] if header[0] != b"range"]
        await super().__call__({**scope, "headers": headers}, receive, send)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({**HEADERS, "Accept-Ranges": "none"})
        return response


def write_problem(request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
    """Write a problem as a page for clients that ask for HTML, as JSON for all others."""
    if not wants_html(request.scope) or speaks_protocol(request.scope):
        return write_json(request, problem, headers)
    heading = HEADINGS.get(problem.code, problem.title)
    page = render(request, "problem.html", problem.status, problem=problem, heading=heading)
    page.headers.update(headers)
    return page
