"""Health probes: whether this process answers, and whether it can serve. They wait for nothing."""

from functools import partial
from operator import attrgetter

from fastapi import APIRouter, Request, Response

from app.api.schemas import Health, HealthStatus, Liveness, RefusedVersion, RuntimeInfo, refer_to
from app.errors import NotReadyError
from app.http.dependencies import get_classifier
from app.http.direct_route import DirectRoute, write_model
from app.http.problems import NAMED_ANSWER, REQUEST_ID_HEADER, RETRY_HEADER
from app.versions.store import ModelStore

_DRAINING_RETRY_SECONDS = 1

router = APIRouter(route_class=DirectRoute, responses=NAMED_ANSWER, generate_unique_id_function=attrgetter("name"))

# Some load balancers probe by HEAD. FastAPI would document it as a second operation of the same name. So this route
# answers both methods, and the next one, which no request reaches, documents GET.
_also_head = partial(router.api_route, methods=["GET", "HEAD"], include_in_schema=False)


@router.get(
    "/health",
    tags=["operate"],
    summary="Readiness",
    response_model=Health,
    responses={
        503: {
            "model": Health,
            "description": "It can't serve: starting, draining or unavailable.",
            "headers": REQUEST_ID_HEADER | RETRY_HEADER,
        }
    },
)
@_also_head("/health")
async def health(request: Request) -> Response:
    """Return 200 if this process can serve requests, 503 and the reason if not.

    ```console
    $ curl localhost:8000/health
    ```
    """
    store = get_classifier(request).store
    status, reason, retry_after_seconds = assess(store, draining=request.app.state.draining)
    model = store.model
    reply = Health(
        status=status,
        reason=reason,
        model=refer_to(model) if model else None,
        runtime=RuntimeInfo(name=model.runtime.name, precision=model.runtime.precision) if model else None,
        refused=[RefusedVersion(version=refusal.version, reason=refusal.reason) for refusal in store.refusals],
    )
    return write_model(reply) if status == "ok" else write_model(reply, 503, {"Retry-After": str(retry_after_seconds)})


@router.get("/health/live", tags=["operate"], summary="Liveness", response_model=Liveness)
@_also_head("/health/live")
async def live(request: Request) -> Liveness:  # noqa: ARG001 -- as every endpoint gets it
    """Return 200 as long as the process answers, whatever else is wrong.

    ```console
    $ curl localhost:8000/health/live
    ```
    """
    return Liveness()


def assess(store: ModelStore, *, draining: bool) -> tuple[HealthStatus, str | None, int]:
    """Return this process's status, the reason if it is not ok, and the seconds after which to retry."""
    if draining:
        return "draining", "this process is about to stop; send requests to another", _DRAINING_RETRY_SECONDS
    try:
        store.require_model()
    except NotReadyError as error:
        return "starting" if store.starting else "unavailable", str(error), error.retry_after_seconds
    return "ok", store.trouble, 0
