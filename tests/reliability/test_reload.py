"""Versions that come and go while the service answers requests."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.contract import METADATA_FILE
from tests.app.artifacts import write_graph
from tests.app.fakes import seal
from tests.app.process import ROOT
from tests.reliability.load import Client, LostError, find_percentile, is_of, make_image

POLL_SECONDS = 0.05
RELOADS = 50


def copy_version(folder: Path, number: int, into: Path | None = None) -> Path:
    """Copy a version under another number, beside it or `into` another folder; written aside, then renamed."""
    into = into or folder.parent
    aside = Path(shutil.copytree(folder, into / f".writing-{number}"))
    metadata = json.loads((aside / METADATA_FILE).read_text())
    (aside / METADATA_FILE).write_text(json.dumps({**metadata, "version": number}))
    return aside.rename(into / str(number))


def spoil(folder: Path, how: str) -> None:
    if "golden" in how:
        spoil_golden(folder, how)
    elif how == "half written":
        (folder / "saved_model.pb").unlink()
    elif how == "corrupt":
        (folder / "saved_model.pb").write_bytes(b"corrupt")
        seal(folder)
    elif how == "wrong digest":
        (folder / "fingerprint.pb").write_bytes(b"x")
    elif how == "link out of the folder":
        target = folder.parent.parent / "elsewhere.pb"
        (folder / "saved_model.pb").rename(target)
        (folder / "saved_model.pb").symlink_to(target)
    else:
        spoil_metadata(folder / METADATA_FILE, how)


def spoil_golden(folder: Path, how: str) -> None:
    arrays = dict(np.load(folder / "golden.npz"))
    if how == "wrong golden answers":
        arrays["probabilities"] = arrays["probabilities"][::-1]
    elif how == "golden answers that are no numbers":
        arrays["probabilities"] = arrays["probabilities"] * np.float32(np.nan)
    elif how == "absurd golden batch":
        arrays = {"images": np.zeros((100_000, 8, 6, 3), np.uint8), "probabilities": np.zeros((100_000, 3), np.float32)}
    np.savez_compressed(folder / "golden.npz", **arrays)
    seal(folder)


def spoil_metadata(path: Path, how: str) -> None:
    metadata = json.loads(path.read_text())
    path.unlink()
    if how == "metadata without an end":
        path.symlink_to("/dev/zero")
    elif how == "metadata that never come":
        os.mkfifo(path)
    elif how == "another input shape":
        metadata["input"]["shape"] = [16, 6, 3]
        path.write_text(json.dumps(metadata))
    elif how == "path out of the folder":
        metadata["files"]["../elsewhere.pb"] = "0" * 64
        path.write_text(json.dumps(metadata))
    else:
        assert how == "no metadata"


REASONS = {
    "half written": "missing: saved_model.pb",
    "corrupt": "can't load it",
    "wrong digest": "digest differs: fingerprint.pb",
    "wrong golden answers": "golden images have other probabilities",
    "another input shape": "the metadata",
    "no metadata": "metadata.json can't be read",
    "metadata without an end": "metadata.json is not a regular file",
    "metadata that never come": "metadata.json is not a regular file",
    "golden answers that are no numbers": "golden images have other probabilities",
    "link out of the folder": "not a regular file",
    "path out of the folder": "not a plain path inside the version folder",
    "absurd golden batch": "golden.npz",
}


async def wait_for_version(client: Client, number: int) -> None:
    async with asyncio.timeout(120):
        while (await client.ask("GET", "/health")).json()["model"]["version"] != number:
            await asyncio.sleep(0.01)


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


@pytest.mark.timeout(600)  # each preflight has low priority beside four clients that never pause
def test_fifty_reloads_under_load_lose_and_leak_nothing(start, models, tell):
    """Every version takes over, every request gets its answer from one of them, and memory does not grow."""
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


def test_bad_versions_are_refused_while_the_old_one_serves(start, models, tell):
    """The reason is in the log and in `/health`, and a metric counts it; removing the newest version rolls back."""
    process = start(model_dir=models, precision="f32", max_batch_size=2, model_poll_seconds=POLL_SECONDS)
    process.wait_until("ok")
    good = models / "tiny" / "1"

    async def run() -> None:
        probe = Client(process.port)
        for count, (how, reason) in enumerate(REASONS.items(), start=1):
            spoiled = copy_version(good, 1000, models.parent / "aside")
            spoil(spoiled, how)
            folder = spoiled.rename(models / "tiny" / "1000")
            async with asyncio.timeout(120):
                while not (health := (await probe.ask("GET", "/health")).json())["refused"]:
                    await asyncio.sleep(0.01)
            assert health["status"] == "ok"
            assert health["model"]["version"] == 1
            assert health["refused"][0]["version"] == 1000
            if how != "another input shape":
                assert reason in health["refused"][0]["reason"], (how, health)
            async with asyncio.timeout(10):  # the log is read by a thread of its own
                while not any(
                    health["refused"][0]["reason"][:60] in json.loads(line)["message"] for line in process.log
                ):
                    await asyncio.sleep(0.01)
            refused = f'classifier_model_loads_total{{outcome="refused"}} {count}.0'
            async with asyncio.timeout(10):  # metrics are rendered once a second
                while refused not in (metrics := (await probe.ask("GET", "/metrics")).body.decode()):
                    await asyncio.sleep(0.05)
            assert "classifier_refused_versions 1.0" in metrics
            shutil.rmtree(folder)
            async with asyncio.timeout(120):
                while (await probe.ask("GET", "/health")).json()["refused"]:
                    await asyncio.sleep(0.01)
        newest = copy_version(good, 1001)
        await wait_for_version(probe, 1001)
        shutil.rmtree(newest)
        await wait_for_version(probe, 1)
        probe.close()

    asyncio.run(run())
    tell("invalid versions of several kinds: served anyway", len(REASONS), 0)


# Damages the index of the SavedModel in a folder so that it crashes OpenVINO.
FIND_CRASH = """
import os, sys
from pathlib import Path
from app.runtime.openvino import make_core
index = Path(sys.argv[1], "variables/variables.index")
good = index.read_bytes()
core = make_core()
for offset in range(100, len(good) - 20, 100):
    index.write_bytes(good[:offset] + bytes(byte ^ 0x55 for byte in good[offset : offset + 20]) + good[offset + 20 :])
    if not (process := os.fork()):
        try:
            core.read_model(sys.argv[1])
        finally:
            os._exit(0)
    if os.waitpid(process, 0)[1]:
        sys.exit()
sys.exit("nothing crashes OpenVINO")
"""


def test_a_version_that_crashes_the_runtime_is_refused(start, shipped, tell):
    """OpenVINO dies of some damaged indexes: a service that serves or starts goes on without such a version."""
    folder = next(shipped.glob("*/*"))
    process = start(model_dir=shipped, max_batch_size=1, model_poll_seconds=POLL_SECONDS)
    process.wait_until("ok")
    number = int(folder.name) + 1
    spoiled = copy_version(folder, number, folder.parents[2])
    subprocess.run([sys.executable, "-c", FIND_CRASH, spoiled], cwd=ROOT, check=True)
    seal(spoiled)
    spoiled.rename(folder.parent / str(number))
    for server in (process, start(model_dir=shipped, max_batch_size=1, model_poll_seconds=POLL_SECONDS)):
        for _ in range(300):
            if (health := server.get("/health")[1])["status"] == "ok" and health["refused"]:
                break
            time.sleep(0.05)
        assert (health["model"]["version"], health["refused"][0]["version"]) == (number - 1, number)
        assert "OpenVINO crashes on it" in health["refused"][0]["reason"]
    tell("versions that crash the runtime: service ended", 2, 0)


def read_peak_memory(process) -> int:
    """Return the most resident memory that the process has had, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.popen.pid}/status").read_text())[1]) * 1024


def find_preflight_limit(process) -> int | None:
    """Return the limit on data of the preflight that `process` runs now, in bytes; None without one."""
    for children in Path(f"/proc/{process.popen.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                if b"app.versions.preflight" in Path(f"/proc/{child}/cmdline").read_bytes():
                    limit = re.search(r"Max data size\s+(\w+)", Path(f"/proc/{child}/limits").read_text())[1]
                    return None if limit == "unlimited" else int(limit)
    return None


@pytest.mark.parametrize("lone", [False, True], ids=["beside a good one", "alone"])
def test_a_graph_that_compiles_to_gigabytes_is_refused(start, models, tell, lone):
    """By another process, whose memory is limited: the service's own never grows, and it goes on."""
    good = models / "tiny" / "1"
    write_graph(good, 1)
    number = 2
    folder = copy_version(good, number, models.parent)
    write_graph(folder, 2048)
    if lone:
        shutil.rmtree(good)
        folder.rename(models / "tiny" / str(number))
    process = start(model_dir=models, precision="int8", max_batch_size=2, model_poll_seconds=POLL_SECONDS)
    if not lone:
        process.wait_until("ok")
        folder.rename(models / "tiny" / str(number))
    before, limits = read_peak_memory(process), set()
    deadline = time.monotonic() + 60
    while not (health := process.get("/health")[1]).get("refused"):
        limits.add(find_preflight_limit(process))
        assert time.monotonic() < deadline
    assert health["status"] == ("unavailable" if lone else "ok")
    assert "takes more than 512 MiB (APP_MAX_MODEL_MEMORY_BYTES)" in health["refused"][0]["reason"]
    assert read_peak_memory(process) - before < 32 * 2**20
    (limit,) = limits - {None}
    assert 512 * 2**20 < limit < 768 * 2**20
    tell("graphs that compile to gigabytes: service ended or grew", 1, 0)


async def time_reloads(port: int, folder: Path, versions: range) -> tuple[list[float], list[float]]:
    """Return the seconds that requests take before versions come, and while they come one after the other."""
    body = make_image(np.random.default_rng(0))[0]
    # Before anything is timed: to copy a version keeps this very process, whose clock it is, for 20 ms.
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
def test_a_reload_of_the_shipped_model_slows_no_request(start, shipped, tell):
    """Loading, verifying and warming share the machine with serving: no request takes noticeably longer.

    That is 50 ms, or twice the p99 of before if it is more. The best of eight tries counts, since other programs of the
    host slow requests, too.
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
    tell("requests during reloads of the shipped model, in the best try: over 50 ms and twice the p99", requests, slow)
