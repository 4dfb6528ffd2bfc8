"""A minimal prototype of this service: OpenVINO, batching without a timer, large files decoded in threads.

It has none of the service's limits, checks, errors, metrics and logs, so the difference shows their cost.
"""

import asyncio
import io
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.artifact import MAX_BATCH_SIZE, SIZE, describe, load

SMALL_BYTES = 8192
run_model = load(range(1, MAX_BATCH_SIZE + 1))
decoders, runner = ThreadPoolExecutor(2), ThreadPoolExecutor(1)
waiting: asyncio.Queue[tuple[NDArray[np.uint8], asyncio.Future[dict[str, Any]]]] = asyncio.Queue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Return (32, 32, 3) uint8; JPEGs are decoded at a reduced size."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (2 * SIZE[0], 2 * SIZE[1]))
    return np.asarray(image.convert("RGB").resize(SIZE, reducing_gap=3.0))


async def batch() -> None:
    """Repeatedly run the items that were queued during the last batch."""
    while True:
        items = [await waiting.get()]
        while not waiting.empty() and len(items) < MAX_BATCH_SIZE:
            items.append(waiting.get_nowait())
        images = np.stack([image for image, _ in items])
        rows = await asyncio.get_running_loop().run_in_executor(runner, run_model, images)
        for row, (_, answer) in zip(rows, items, strict=True):
            if not answer.done():
                answer.set_result(describe(row))


@asynccontextmanager
async def batching(_: FastAPI) -> AsyncIterator[None]:
    """Run the batcher while the application runs."""
    task = asyncio.create_task(batch())
    yield
    task.cancel()


app = FastAPI(lifespan=batching)


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, Any]:
    """Classify one image."""
    data, loop = await file.read(), asyncio.get_running_loop()
    image = decode(data) if len(data) <= SMALL_BYTES else await loop.run_in_executor(decoders, decode, data)
    answer: asyncio.Future[dict[str, Any]] = loop.create_future()
    waiting.put_nowait((image, answer))
    return await answer


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
