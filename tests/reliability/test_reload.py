"""Versions that are added and removed while the service answers requests."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.reliability.load import Client, LostError, find_percentile, is_of, make_image
from tests.reliability.versions import POLL_SECONDS, copy_version, wait_for_version

RELOADS = 50


async def work(port: int, seed: int, ended: asyncio.Event, counts: dict[str, int], versions: set[int]) -> None:
    rng = np.random.default_rng(seed)
    client = Client(port)
    while not ended.is_set():
        body, probabilities = make_image(rng)
        try:
            answer = await client.ask("POST", "/predict", body)
        except LostError:
            counts["lost"] += 1
            continue
        counts["answered"] += 1
        good = answer.status == 200 and is_of(answer, probabilities)
        counts["wrong"] += not good
        if good:
            versions.add(answer.json()["model"]["version"])
    client.close()


def read_memory(process) -> int:
    """Return the process's resident memory, in bytes."""
    fields = Path(f"/proc/{process.popen.pid}/statm").read_text().split()
    return int(fields[1]) * 4096


def count_files(process) -> int:
    return len(list(Path(f"/proc/{process.popen.pid}/fd").iterdir()))


@pytest.mark.timeout(600)  # preflights have low priority, and four clients never pause
def test_fifty_reloads_under_load_lose_and_leak_nothing(start, models, tell):
    """Every version takes over, every request gets an answer from one of them, and memory does not grow."""
    process = start(model_dir=models, precision="f32", max_batch_size=8, model_poll_seconds=POLL_SECONDS)
    process.wait_until("ok")
    counts = dict.fromkeys(("answered", "lost", "wrong"), 0)
    versions: set[int] = set()
    memory: list[int] = []
    files: list[int] = []

    async def run() -> None:
        ended = asyncio.Event()
        tasks = [asyncio.create_task(work(process.port, seed, ended, counts, versions)) for seed in range(4)]
        probe = Client(process.port)
        folder = models / "tiny" / "1"
        for number in range(2, RELOADS + 2):
            newer = copy_version(folder, number)
            await wait_for_version(probe, number)
            shutil.rmtree(folder)
            folder = newer
            memory.append(read_memory(process))
            files.append(count_files(process))
        ended.set()
        await asyncio.gather(*tasks)
        probe.close()

    asyncio.run(run())
    assert (counts["lost"], counts["wrong"]) == (0, 0)
    assert counts["answered"] > 200
    assert len(versions) > RELOADS / 2
    settled, last = np.median(memory[10:20]), np.median(memory[-10:])
    assert last - settled < 8 * 2**20, [m >> 20 for m in memory]
    assert max(files[10:]) - min(files[10:]) < 10
    tell("reloads under load", RELOADS, 0)
    tell("requests during reloads", counts["answered"], counts["lost"] + counts["wrong"])


async def time_reloads(port: int, folder: Path, versions: range) -> tuple[list[float], list[float]]:
    """Return the seconds that requests take before the new versions, and while they are loaded one after the other."""
    body = make_image(np.random.default_rng(0))[0]
    # Copying blocks this process for 20 ms, so it happens before anything is timed.
    copies = {version: copy_version(folder, version, folder.parents[2]) for version in versions}
    before: list[float] = []
    during: list[float] = []
    times = before
    ended = False

    async def ask() -> None:
        client = Client(port)
        while not ended:
            answer = await client.ask("POST", "/predict", body)
            assert answer.status == 200
            times.append(answer.seconds)
        client.close()

    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    await asyncio.sleep(3)
    times = during
    probe = Client(port)
    for version, copy in copies.items():
        copy.rename(folder.parent / str(version))
        await wait_for_version(probe, version)
    ended = True
    await asyncio.gather(*tasks)
    probe.close()
    return before, during


NOTICEABLE_SECONDS = 0.05


@pytest.mark.timeout(180)
def test_a_reload_of_the_shipped_model_does_not_delay_requests(start, shipped, tell):
    """Loading, verifying and warming share the machine with serving: no request takes noticeably longer.

    That is 50 ms, or twice the previous p99 if that is more. The best of eight tries counts, because other programs of
    the host delay requests too.
    """
    process = start(model_dir=shipped, max_batch_size=8, model_poll_seconds=0.1)
    process.wait_until("ok")
    folder = next(shipped.glob("*/*"))
    number = int(folder.name)
    tries: list[tuple[int, int]] = []
    for attempt in range(8):
        first = number + 1 + 3 * attempt
        before, during = asyncio.run(time_reloads(process.port, folder, range(first, first + 3)))
        p99 = find_percentile(before, 99)
        limit = max(2 * p99, NOTICEABLE_SECONDS)
        slow = sum(seconds > limit for seconds in during)
        print(f"\np99 {1000 * p99:.0f} ms before; then {slow} over the limit, the slowest {1000 * max(during):.0f} ms")
        tell("requests during reloads of the shipped model: failed", len(during), 0)
        tries.append((slow, len(during)))
        if not slow:
            break
    slow, requests = min(tries)
    assert slow == 0, tries
    tell(
        "requests during reloads of the shipped model, in the best try: slower than both 50 ms and twice the p99",
        requests,
        slow,
    )
