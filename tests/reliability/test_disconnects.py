"""Clients that leave, at every point of their request, while others are served."""

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


def test_clients_that_leave_poison_nobody(start, models, tell):
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


def test_who_left_costs_no_inference(start, models):
    """Of a crowd that leaves at once, only those reach the model whose batch was already running."""
    process = start(model_dir=models, precision="f32", max_batch_size=4, decode_threads=1)
    process.wait_until("ok")
    rng = np.random.default_rng(0)
    body = b"".join((make_image(rng)[0],))

    async def run() -> None:
        clients = [Client(process.port) for _ in range(200)]
        for client in clients:
            await client.send("POST", "/predict", body, cut=-1)  # all but the last byte
        await asyncio.sleep(0.5)
        for client in clients:
            client.abort()

    asyncio.run(run())
    connection = process.connect()
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    assert "classifier_batch_images_sum 0.0" in lines
