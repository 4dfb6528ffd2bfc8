"""The pages for people: the form at `/`, its answers, the model card, the API's documentation.

They show what the API returns: the same errors, the same classifier. Nothing in them is loaded from other hosts, and
their content policy forbids inline scripts and styles. The form works without JavaScript.
"""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import Scope

from app.api.openapi import show_openapi
from app.api.routes import choose_top_k, read_top_k
from app.api.schemas import describe
from app.http.deadline import cancel_on_disconnect
from app.http.dependencies import get_cache, get_classifier, get_settings
from app.http.middleware import find_header
from app.http.paths import get_root
from app.http.problems import Problem, speaks_protocol, write_json
from app.http.shared_response import SharedResponse
from app.http.uploads import read_image
from app.images.decode import encode_png
from app.images.formats import FORMAT_NAMES
from app.pages.assets import serve_files
from app.pages.card import CARD_FILE, read_card_file, render_markdown
from app.pages.render import HEADERS, STATIC, fill_in, format_json, make_page, render
from app.pages.samples import MEDIA_TYPES, find_sample, list_samples
from app.versions.model import Model

_PICTURE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
# Headings of error pages by code; other codes get their status's phrase. The problem's detail follows.
HEADINGS = {
    "empty_upload": "The file is empty",
    "cross_site": "Another site sent the picture",
    "upload_timeout": "The upload took too long",
    "upload_too_large": "The file is too large",
    "image_too_large": "The picture has too many pixels",
    "unsupported_image": "This is not a supported picture format",
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


def install_pages(app: FastAPI) -> None:
    """Add the pages to `app`. Call it last, so that other routes match first."""
    swagger = [file for file in (files("fastapi_offline") / "static").iterdir() if file.name.startswith("swagger")]
    # Before the API's own route of the same path.
    app.router.routes[:0] = [
        _BrowserPage("/predict", answer_form, methods=["POST"]),
        _BrowserPage("/predict", redirect_home),
    ]
    app.router.routes.extend(
        [
            _Page("/", show_home),
            _Page("/model/card", redirect_to_card),
            _Page("/model/card/", show_card),
            _Page("/model/card/{name}", show_plot),
            _Page("/samples/{name}", show_sample),
            _Page("/docs", show_documentation),
            _Page("/openapi.json", show_openapi),
            _Page("/docs/assets/{name}", serve_files(swagger)),
            _Page("/web/{name}", serve_files(STATIC.iterdir())),
        ]
    )


async def show_home(request: Request) -> HTMLResponse:
    """Show the form, the samples, and what the model is."""
    model = get_classifier(request).store.model
    root, max_bytes = get_root(request.scope), get_settings(request).max_upload_bytes

    def write() -> bytes:
        samples = list_samples(model.folder) if model else []
        return fill_in(
            "home.html", root=root, model=model, samples=samples, formats=FORMAT_NAMES, max_bytes=max_bytes
        ).encode()

    return make_page(await _get_cached(request, ("home", root), model, write))


async def answer_form(request: Request) -> HTMLResponse:
    """Answer the form: what `/predict` returns, and the pixels that the model sees."""
    classifier, settings = get_classifier(request), get_settings(request)
    top_k = choose_top_k(read_top_k(request), classifier.require_ready())
    data = await read_image(request, timeout_seconds=settings.upload_timeout_seconds)
    started = time.perf_counter()
    async with cancel_on_disconnect(request, timeout_seconds=settings.request_timeout_seconds):
        scores = await classifier.classify(data)
    seconds = time.perf_counter() - started
    reply = describe(scores, top_k)
    return render(
        request,
        "result.html",
        reply=reply,
        is_unfamiliar=scores.is_unfamiliar,
        json=format_json(reply),
        pixels="data:image/png;base64," + b64encode(encode_png(scores.image)).decode(),
        size=scores.model.image_size,
        calibration_error=scores.model.metadata.metrics.calibration_error,
        seconds=seconds,
        url=f"{request.base_url}predict",
        keyed=bool(settings.api_keys),
    )


async def redirect_home(request: Request) -> Response:
    """Redirect to the form when a browser opens the address of its answer again."""
    return RedirectResponse(f"{get_root(request.scope)}/", 303)


async def redirect_to_card(request: Request) -> Response:
    """Redirect to the card's address with a slash, which the card's own links to its plots need."""
    return RedirectResponse(f"{get_root(request.scope)}/model/card/")


async def show_card(request: Request) -> HTMLResponse:
    """Show the card of the version that serves."""
    model = get_classifier(request).store.require_model()
    root = get_root(request.scope)

    def write() -> bytes:
        text = read_card_file(model, CARD_FILE)
        if text is None:
            raise HTTPException(404, "this version has no card")
        card = Markup(render_markdown(text.decode(errors="replace")))  # noqa: S704 -- the parser escapes the card's HTML
        return fill_in("card.html", root=root, model=model, card=card).encode()

    return make_page(await _get_cached(request, ("card", root), model, write))


async def show_plot(request: Request) -> Response:
    """Return one of the card's pictures."""
    model = get_classifier(request).store.require_model()
    name = request.path_params["name"]
    media_type = _PICTURE_TYPES.get(Path(name).suffix)

    def read() -> bytes:
        data = read_card_file(model, name) if media_type else None
        if data is None:
            raise HTTPException(404, "the card has no such picture")
        return data

    data = await _get_cached(request, ("plot", name), model, read)
    return SharedResponse(data, media_type=media_type, headers=HEADERS)


async def show_sample(request: Request) -> Response:
    """Return one of the sample images."""
    model = get_classifier(request).store.require_model()
    name = request.path_params["name"]

    def read() -> bytes:
        path = find_sample(model.folder, name)
        if path is None:
            raise HTTPException(404, "there is no such sample")
        return path.read_bytes()

    data = await _get_cached(request, ("sample", name), model, read)
    return SharedResponse(data, media_type=MEDIA_TYPES[Path(name).suffix.lower()], headers=HEADERS)


async def show_documentation(request: Request) -> HTMLResponse:
    """Show the API's documentation, by Swagger UI from an installed package."""
    root, title = get_root(request.scope), request.app.title
    return make_page(
        await _get_cached(request, ("docs", root), None, lambda: fill_in("docs.html", root=root, title=title).encode())
    )


async def _get_cached(request: Request, key: tuple[str, str], model: Model | None, make: Callable[[], bytes]) -> bytes:
    """Return the result of `make` for this version, cached for a second; `make` runs in a thread."""
    version = (model.metadata.name, model.metadata.version) if model else None
    return await get_cache(request).get((*key, version), partial(asyncio.to_thread, make))


def wants_html(scope: Scope) -> bool:
    """Return whether a client accepts `text/html` explicitly. Browsers do when they navigate."""
    accept = find_header(scope, b"accept").lower() if scope["type"] == "http" else ""
    return "text/html" in accept and "json" not in accept


class _Page(Route):
    """A page or a file. Like FastAPI's routes, it adds itself to the scope, for the log and the metrics."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, "route": self} if match != Match.NONE else child


class _BrowserPage(_Page):
    """Matches requests for HTML; others go on to the API's route of the same path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if wants_html(scope) else (Match.NONE, {})


def write_problem(request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
    """Write a problem as a page for clients that ask for HTML, as JSON for all others."""
    if not wants_html(request.scope) or speaks_protocol(request.scope):
        return write_json(request, problem, headers)
    heading = HEADINGS.get(problem.code, problem.title)
    page = render(request, "problem.html", problem.status, problem=problem, heading=heading)
    page.headers.update(headers)
    return page
