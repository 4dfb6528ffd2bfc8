"""Probes: whether this process answers, and whether it can serve. They wait for nothing and nobody."""

from functools import partial

from fastapi import APIRouter, Request, Response

from app.api.schemas import Health, HealthStatus, Liveness, ModelRef, RefusedVersion, RuntimeInfo
from app.errors import NotReadyError
from app.http.dependencies import ClassifierDep
from app.http.problems import NAMED_ANSWER, REQUEST_ID_HEADER, RETRY_HEADER
from app.versions.store import ModelStore

_DRAINING_RETRY_SECONDS = 1

router = APIRouter(responses=NAMED_ANSWER)

# Some load balancers probe by HEAD. FastAPI would document it as a second operation of the same name, so this route
# answers both and the next one, which no request reaches, documents GET.
_also_head = partial(router.api_route, methods=["GET", "HEAD"], include_in_schema=False)


@router.get(
    "/health",
    tags=["operate"],
    summary="Whether this process can serve",
    responses={
        503: {
            "model": Health,
            "description": "It can't serve (any more): starting, draining or unavailable.",
            "headers": REQUEST_ID_HEADER | RETRY_HEADER,
        }
    },
    response_model_exclude_none=True,
)
@_also_head("/health", response_model_exclude_none=True)
async def health(request: Request, response: Response, classifier: ClassifierDep) -> Health:
    """Readiness: 200 while requests should come here, 503 and the reason while they should not.

    ```console
    $ curl localhost:8000/health
    ```
    """
    store = classifier.store
    status, reason, retry_after_seconds = assess(store, draining=request.app.state.draining)
    if status != "ok":
        response.status_code = 503
        response.headers["Retry-After"] = str(retry_after_seconds)
    model = store.model
    return Health(
        status=status,
        reason=reason,
        model=ModelRef.of(model) if model else None,
        runtime=RuntimeInfo(name=model.runtime.name, precision=model.runtime.precision) if model else None,
        refused=[RefusedVersion(version=refusal.version, reason=refusal.reason) for refusal in store.refusals],
    )


@router.get("/health/live", tags=["operate"], summary="Whether this process answers at all")
@_also_head("/health/live")
async def live() -> Liveness:
    """Liveness: 200 as long as the process answers, whatever else is wrong.

    ```console
    $ curl localhost:8000/health/live
    ```
    """
    return Liveness()


def assess(store: ModelStore, *, draining: bool) -> tuple[HealthStatus, str | None, int]:
    """Return this process's status, the reason if not all is well, and the seconds after which to ask again."""
    if draining:
        return "draining", "this process is about to stop; send requests to another", _DRAINING_RETRY_SECONDS
    try:
        store.require_model()
    except NotReadyError as error:
        return "starting" if store.starting else "unavailable", str(error), error.retry_after_seconds
    return "ok", store.trouble, 0
