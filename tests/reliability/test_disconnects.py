"""Clients that disconnect at any point of their request, while others are served."""

import asyncio
import time

import numpy as np

from tests.reliability.load import Client, LostError, is_of, make_image


async def work(port: int, seed: int, until: float, counts: dict[str, int]) -> None:
    rng = np.random.default_rng(seed)
    client = Client(port)
    while time.monotonic() < until:
        body, probabilities = make_image(rng)
        if rng.random() < 0.3:
            counts["aborted"] += 1
            await client.send("POST", "/predict", body, cut=int(rng.integers(1, len(body) + 200)))
            await asyncio.sleep(float(rng.exponential(0.005)))
            client.abort()
            continue
        try:
            answer = await client.ask("POST", "/predict", body)
        except LostError:
            counts["lost"] += 1
            continue
        counts["answered"] += 1
        counts["wrong"] += answer.status != 200 or not is_of(answer, probabilities)
    client.close()


def test_disconnects_affect_no_other_client(start, models, tell):
    """With 30 % of requests aborted at random, every other one gets the answer for its own image."""
    process = start(model_dir=models, precision="f32", max_batch_size=8)
    process.wait_until("ok")
    counts = dict.fromkeys(("aborted", "answered", "lost", "wrong"), 0)

    async def run() -> None:
        until = time.monotonic() + 10
        await asyncio.gather(*(work(process.port, seed, until, counts) for seed in range(24)))

    asyncio.run(run())
    assert counts["aborted"] > 100
    assert counts["answered"] > 2 * counts["aborted"] * 0.8
    assert (counts["lost"], counts["wrong"]) == (0, 0)
    assert process.get("/health")[0] == 200
    assert "Traceback" not in "".join(process.log)
    tell(
        "answers, each compared with its own image, while 30 % of requests are aborted at random",
        counts["answered"],
        counts["lost"] + counts["wrong"],
    )


# The service with a model that takes 0.3 s per image.
SLOW = """
import time
import app.versions.model
predict = app.versions.model.Model.predict
app.versions.model.Model.predict = lambda *images, **how: (time.sleep(0.3), predict(*images, **how))[1]
from app.__main__ import main
main()
"""


def test_images_of_disconnected_clients_are_not_classified(start, models):
    """If 40 clients disconnect, only the images of running batches reach the model."""
    process = start(
        program=("-c", SLOW), model_dir=models, precision="f32", inference_threads=1, max_batch_size=1,
        request_timeout_seconds=60,
    )  # fmt: skip
    process.wait_until("ok")
    body, _ = make_image(np.random.default_rng(0))

    async def run() -> dict[str, float]:
        clients = [Client(process.port) for _ in range(40)]
        for client in clients:
            await client.send("POST", "/predict", body)
        probe = Client(process.port)
        while (await read_metrics(probe))["classifier_queue_images"] < len(clients):
            await asyncio.sleep(0.01)
        for client in clients:
            client.abort()
        await asyncio.sleep(1.5)  # the time for five images
        metrics = await read_metrics(probe)
        probe.close()
        return metrics

    metrics = asyncio.run(run())
    assert metrics["classifier_queue_images"] == 0
    assert 1 <= metrics["classifier_batch_images_sum"] <= 3


async def read_metrics(client: Client) -> dict[str, float]:
    lines = (await client.ask("GET", "/metrics")).body.decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
