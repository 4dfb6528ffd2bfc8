"""Ray Serve in its high-throughput mode: HAProxy in front of a replica that batches with `@serve.batch`.

The replica has both cores. It runs the model and decodes large files in threads, because its event loop must not block.
"""

import asyncio
import os
import tempfile
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.artifact import MAX_BATCH_SIZE, decode, describe, load
from benchmarks.port import find_free_port

CPUS = 2
SMALL_BYTES = 8192
# Two clusters on one machine must not share these: one would get the other's requests.
PORTS = ("FALLBACK_PROXY_HTTP_PORT", "HAPROXY_METRICS_PORT", "HAPROXY_STATS_PORT")
FILES = ("CONFIG_FILE_LOC", "SOCKET_PATH", "SERVER_STATE_BASE", "SERVER_STATE_FILE", "METRICS_SOCKET_PATH")


@serve.deployment(ray_actor_options={"num_cpus": CPUS}, max_ongoing_requests=1000)
class Classify:
    """The model behind `/predict`."""

    def __init__(self) -> None:
        self.run_model = load()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.005)
    async def classify(self, images: list[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Classify the images of a batch."""
        return [describe(row) for row in await asyncio.to_thread(self.run_model, np.stack(images))]

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Classify the image in a form's field `file`, or in the body."""
        if request.headers["content-type"].startswith("multipart/form-data"):
            async with request.form() as form:
                file: Any = form["file"]
                data = await file.read()
        else:
            data = await request.body()
        image = decode(data) if len(data) <= SMALL_BYTES else await asyncio.to_thread(decode, data)
        return await self.classify(image)


if __name__ == "__main__":
    for name in PORTS:
        os.environ[f"RAY_SERVE_{name}"] = str(find_free_port())
    for name in FILES:
        os.environ[f"RAY_SERVE_HAPROXY_{name}"] = f"{tempfile.gettempdir()}/{name.lower()}"
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    application = Classify.bind()  # type: ignore[attr-defined]  # mypy ignores what a class decorator returns
    serve.run(application, route_prefix="/predict", logging_config={"enable_access_log": False}, blocking=True)
