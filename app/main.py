"""The application: settings in, FastAPI out. `uvicorn app.main:app` serves it; `python -m app` also drains it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from operator import attrgetter

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app.api import health
from app.api.routes import router
from app.http.access_log import AccessLog
from app.http.auth import RequireKey, document_keys
from app.http.cache import Cache
from app.http.content_encoding import ContentEncoding
from app.http.forwarded import Forwarded
from app.http.middleware import BodyLimit, ReadPacing
from app.http.origin import OriginCheck
from app.http.paths import METRICS, PROBES, ignore_trailing_slashes
from app.http.problems import COMMON_KINDS, ErrorAnswers, tabulate_kinds
from app.images.decoders import Decoders
from app.inference.batcher import list_batch_sizes
from app.inference.classifier import Classifier
from app.pages.routes import install_pages, write_problem
from app.runtime.load import count_workers
from app.settings import Settings
from app.telemetry.metrics import Metrics, ModelState, ServingModel
from app.v1.routes import router as v1_router
from app.v2.routes import router as v2_router
from app.versions.loader import Load, make_loader
from app.versions.store import ModelStore

_DESCRIPTION = f"""Classifies images. Every error is an RFC 9457 problem (`application/problem+json`): its `detail` says
what to do, and its `request_id`, also sent as `X-Request-ID`, finds the request in the service's log.

Each endpoint lists its own errors. Any request can get these:

{tabulate_kinds(*COMMON_KINDS)}"""


def create_app(settings: Settings | None = None, *, load: Load | None = None) -> FastAPI:
    """Make the application.

    Args:
        settings: by default from the environment.
        load: loads a version folder; by default it verifies the version and runs it as `settings` say.
    """
    settings = settings or Settings()
    load = load or make_loader(settings, batch_sizes=list_batch_sizes(settings.max_batch_size))
    app = FastAPI(
        title="Image classification",
        description=_DESCRIPTION,
        version="1.0",
        openapi_url=None,  # see `app.api.openapi`
        docs_url=None,  # FastAPI's own pages load scripts from another site; `app.pages` has one that does not
        redoc_url=None,
        # `app.telemetry` measures; FastAPI's telemetry would read its settings from the environment for each request
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=partial(_run, settings=settings, load=load),
        generate_unique_id_function=attrgetter("name"),
    )
    app.state.settings = settings
    app.state.draining = False
    app.state.cache = Cache[bytes]()
    app.state.metrics = Metrics()
    app.router.routes.extend(router.routes)  # `include_router` takes 10 % of the event loop's time on a small image
    app.router.routes.extend(health.router.routes)
    app.include_router(v1_router)
    app.include_router(v2_router)
    install_pages(app)
    ignore_trailing_slashes(app.router)
    app.middleware_stack = _wrap(app, settings)
    if settings.api_keys:
        document_keys(app)
    return app


def _wrap(app: FastAPI, settings: Settings) -> ASGIApp:
    """Wrap the routes in middleware, the innermost first.

    FastAPI's own stack has four more layers, which take 10 % of the event loop's time on a small image.
    """
    stack: ASGIApp = AsyncExitStackMiddleware(app.router)  # FastAPI's routes need it
    stack = BodyLimit(stack, max_bytes=settings.max_upload_bytes, max_total_bytes=settings.max_uploads_total_bytes)
    stack = ContentEncoding(stack)
    if settings.api_keys:
        stack = RequireKey(stack, keys=settings.api_keys)
    if settings.cors_origins:  # outside of the key check: browsers send preflight requests without a key
        stack = CORSMiddleware(
            ErrorAnswers(stack, write=write_problem),  # inside, so that pages of these origins can read them
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID", "Inference-Header-Content-Length"],
            expose_headers=["X-Request-ID", "Retry-After", "Inference-Header-Content-Length"],
        )
    stack = OriginCheck(stack, allowed_hosts=settings.served_hosts, allowed_origins=settings.cors_origins)
    stack = ErrorAnswers(stack, write=write_problem)
    stack = Forwarded(stack, trusted=settings.trusted_proxies, root_path=settings.root_path)
    return AccessLog(ReadPacing(stack), metrics=app.state.metrics)


def create_probe_app(app: FastAPI) -> FastAPI:
    """Make the application of the probe port: the probes and metrics of `app`, without its keys and other checks."""
    probe_app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False})
    probe_app.state = app.state
    for routes in (health.router.routes, router.routes, v2_router.routes):
        probe_app.router.routes.extend(route for route in routes if getattr(route, "path", None) in PROBES | {METRICS})
    answers = ErrorAnswers(AsyncExitStackMiddleware(probe_app.router))
    probe_app.middleware_stack = AccessLog(answers, metrics=app.state.metrics)
    return probe_app


@asynccontextmanager
async def _run(app: FastAPI, settings: Settings, load: Load) -> AsyncIterator[None]:
    """Serve at once, and load the model meanwhile; `/health` says `starting` until it is loaded."""
    metrics: Metrics = app.state.metrics
    store = ModelStore(settings.model_dir, load, pinned=settings.model_version, observe=metrics.observe_load)
    decoders = Decoders(
        settings.decoders,
        max_pixels=settings.max_image_pixels,
        max_bytes=settings.max_upload_bytes,
        timeout_seconds=settings.decode_timeout_seconds,
        observe_restart=metrics.observe_decoder_restart,
    )
    decoders.start()
    classifier = Classifier(
        store,
        decoders,
        batch_sizes=list_batch_sizes(settings.max_batch_size),
        max_queue_size=settings.max_queue_size,
        workers=count_workers(settings.runtime, settings.inference_threads),
        observe_batch=metrics.observe_batch,
        observe_typicality=metrics.observe_typicality,
    )
    metrics.watch(lambda: _describe_store(store), lambda: classifier.depth)
    app.state.classifier = classifier
    async with store.following(settings.model_poll_seconds):
        yield
    classifier.close()


def _describe_store(store: ModelStore) -> ModelState:
    serving = None
    if model := store.model:
        metadata, runtime = model.metadata, model.runtime
        serving = ServingModel(metadata.name, str(metadata.version), runtime.name, runtime.precision)
    return ModelState(serving, len(store.refusals), has_trouble=store.trouble is not None)


def __getattr__(name: str) -> FastAPI:
    """Make `app` on first use, for `uvicorn app.main:app`; `python -m app` makes its own."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = app = create_app()
    return app
