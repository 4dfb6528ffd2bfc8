"""Versions that must not serve: damaged ones, and those that crash the runtime or take too much memory."""

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
from tests.reliability.load import Client
from tests.reliability.versions import POLL_SECONDS, copy_version, wait_for_version


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


def test_bad_versions_are_refused_while_the_old_one_serves(start, models, tell):
    """The log and `/health` have the reason, and a metric counts them. Removing the newest version rolls back."""
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
            async with asyncio.timeout(10):  # a thread reads the log
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
    """Some damaged indexes crash OpenVINO. A service that serves or starts continues without such a version."""
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
        assert "openvino crashes on it" in health["refused"][0]["reason"]
    tell("versions that crash the runtime: service ended", 2, 0)


def read_peak_memory(process) -> int:
    """Return the peak resident memory of the process, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.popen.pid}/status").read_text())[1]) * 1024


def find_preflight_limit(process) -> int | None:
    """Return the data limit of the preflight that `process` is running, in bytes; None without one."""
    for children in Path(f"/proc/{process.popen.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                if b"app.versions.preflight" in Path(f"/proc/{child}/cmdline").read_bytes():
                    limit = re.search(r"Max data size\s+(\w+)", Path(f"/proc/{child}/limits").read_text())[1]
                    return None if limit == "unlimited" else int(limit)
    return None


@pytest.mark.parametrize("lone", [False, True], ids=["beside a good one", "alone"])
def test_a_graph_that_compiles_to_gigabytes_is_refused(start, models, tell, lone):
    """By the preflight, whose memory is limited. The service's own memory does not grow."""
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
