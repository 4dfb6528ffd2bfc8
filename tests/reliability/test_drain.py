"""A stop under load loses no accepted request."""

import asyncio
import signal
import time

import numpy as np
import pytest

from tests.reliability.load import Client, LostError, is_of, make_image

DRAIN_SECONDS = 1.5


async def work(port: int, seed: int, counts: dict[str, int], *, keep: bool) -> None:
    """Send requests until the service refuses connections."""
    rng = np.random.default_rng(seed)
    client = Client(port)
    while True:
        body, probabilities = make_image(rng)
        try:
            answer = await client.ask("POST", "/predict", body)
        except ConnectionRefusedError:
            return
        except LostError:
            counts["lost"] += 1
            continue
        counts["answered"] += 1
        counts["wrong"] += answer.status != 200 or not is_of(answer, probabilities)
        if not keep:
            client.close()


async def send_slowly(port: int, body: bytes) -> int:
    """Send half of an upload, and the rest long after the listener has closed."""
    client = Client(port)
    await client.send("POST", "/predict", body, cut=-20)
    await asyncio.sleep(DRAIN_SECONDS + 1)
    client._writer.write(body[-20:])
    head = await client._reader.readuntil(b"\r\n\r\n")
    client.close()
    return int(head.split()[1])


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("clients", [16, 48])
def test_a_stop_under_load_loses_nothing(start, models, tell, which, clients):
    """With kept, new and idle connections, and an unfinished upload. The process exits in time, with status 0."""
    process = start(model_dir=models, precision="f32", max_batch_size=8, drain_seconds=DRAIN_SECONDS)
    process.wait_until("ok")
    counts = dict.fromkeys(("answered", "lost", "wrong"), 0)
    seen: dict[str, float] = {}

    async def run() -> None:
        idle = Client(process.port)
        assert (await idle.ask("GET", "/health/live")).status == 200
        slow = asyncio.create_task(send_slowly(process.port, make_image(np.random.default_rng(9))[0]))
        tasks = [asyncio.create_task(work(process.port, seed, counts, keep=seed % 2 == 0)) for seed in range(clients)]
        await asyncio.sleep(0.5)
        process.signal(which)
        signalled = time.monotonic()
        probe = Client(process.port)
        while (await probe.ask("GET", "/health")).status != 503:
            await asyncio.sleep(0.01)
        seen["health"] = time.monotonic() - signalled
        await asyncio.gather(*tasks)
        seen["closed"] = time.monotonic() - signalled
        assert await slow == 200
        idle.close()
        probe.close()

    asyncio.run(run())
    stopped = time.monotonic()
    assert process.wait() == 0
    assert time.monotonic() - stopped < 3
    assert seen["health"] < 1
    assert seen["closed"] >= DRAIN_SECONDS
    assert counts["answered"] > 50
    assert (counts["lost"], counts["wrong"]) == (0, 0)
    tell("stops under load", 1, 0)
    tell(
        "requests during a stop: on kept and new connections, and an unfinished upload",
        counts["answered"],
        counts["lost"] + counts["wrong"],
    )
