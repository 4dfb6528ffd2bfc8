"""`python -m app.bulk` on real Ray: a local one, and a cluster of two nodes, one of which is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk.results import digest_version
from tests.app.fakes import encode
from tests.app.process import ROOT

COLOURS = ("red", "lime", "blue")
LABELS = {"red": "red", "lime": "green", "blue": "blue"}
ROWS, GROUP = 9_000, 20  # enough shards that the job is not over before something is killed
# A node that does not answer counts as dead after three seconds, not half a minute.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
DEADLINE_SECONDS = 240

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 images, a damaged one, and one that can't be read."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(30):
        kind = ("PNG", "JPEG", "WEBP")[index // 3 % 3]
        (folder / f"{index:02}.{kind.lower()}").write_bytes(encode(COLOURS[index % 3], kind=kind))
    (folder / "damaged.png").write_bytes(encode()[:60])
    (folder / "gone.png").symlink_to("nowhere")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files with thousands of images, in row groups of twenty."""
    folder = tmp_path_factory.mktemp("rows")
    images = [encode(colour) for colour in COLOURS]
    for number in range(3):
        table = pa.table({"image": [images[row % 3] for row in range(ROWS // 3)]})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=GROUP)
    return folder


@pytest.fixture
def begin(exported: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command; takes its arguments and the address of a cluster. It ends with the test."""
    started = []

    def begin(*arguments: object, address: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app.bulk", *map(str, arguments)]
        environment = {**os.environ, "APP_MODEL_DIR": str(exported.parent), "RAY_ADDRESS": address}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def cluster() -> Iterator["ray.cluster_utils.Cluster"]:  # noqa: F821 -- imported when a test needs it
    """A cluster of two nodes with a core each; the driver runs on the first."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 -- takes a second

    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def wait_for(holds: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, said
    return said


def list_parts(output: Path) -> dict[str, int]:
    """Return the files of results that are done, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}


def count_images(output: Path) -> Counter[tuple[str, int]]:
    """Count the rows of each image, which have the right label."""
    table = pq.read_table(output).to_pylist()
    assert {row["label"] == LABELS[COLOURS[row["row"] % 3]] for row in table} == {True}
    return Counter((row["path"], row["row"]) for row in table)


def expect_once(source: Path) -> Counter[tuple[str, int]]:
    return Counter((str(path), row) for path in source.iterdir() for row in range(ROWS // 3))


def find_workers(parent: int) -> list[psutil.Process]:
    """Return the actors below a process that have started to classify."""
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            if any("_Actor" in name and name.endswith("submit") for name in child.cmdline()[:1]):
                found.append(child)
    return found


def test_a_folder_on_this_machine(begin, photos, exported, tmp_path, tell):
    """A row for each image, with the model in the file's metadata. Nobody needs to have Ray running; it says little."""
    said = finish(begin(photos, tmp_path / "out", "--shard-size", 8))
    table = pq.read_table(tmp_path / "out")
    found = {Path(row["path"]).name: row["label"] or row["code"] for row in table.to_pylist()}
    expected = {path.name: LABELS[COLOURS[int(path.stem) % 3]] for path in photos.iterdir() if path.stem.isdecimal()}
    assert found == expected | {"damaged.png": "broken_image", "gone.png": "unreadable_file"}
    assert table.num_rows == len(expected) + 2
    assert table.schema.metadata == {
        b"model": b"tiny", b"version": b"1", b"digest": digest_version(exported).encode()
    }  # fmt: skip
    lines = said.splitlines()
    assert all(" images (" in line for line in lines[:-1]), said
    assert lines[-1] == f"{tmp_path}/out: 32 images, 32 of them from this run, 2 of them with an error"
    tell("images of a bulk job: without a row, or with two", 32, 32 - len(found))


def test_a_node_that_is_killed_loses_no_image(begin, cluster, rows, tmp_path, tell):
    """Its shards are repeated elsewhere, and every image has one row."""
    (node,) = cluster.worker_nodes
    process = begin(rows, tmp_path / "out", "--column", "image", "--shard-size", GROUP, address=cluster.address)
    (raylet,) = node.all_processes["raylet"]
    wait_for(lambda: len(list_parts(tmp_path / "out")) >= 5 and find_workers(raylet.process.pid), process)
    cluster.remove_node(node, allow_graceful=False)
    done = len(list_parts(tmp_path / "out"))
    assert done < ROWS // GROUP, "the job was over before the node was killed"
    finish(process)
    counted = count_images(tmp_path / "out")
    assert counted == expect_once(rows)
    tell(
        "images of a bulk job, one of whose two nodes is killed: without a row, or with two", ROWS, ROWS - len(counted)
    )


def test_a_job_that_is_killed_goes_on_where_it_was(begin, rows, tmp_path, tell):
    """A second run writes only the missing shards. A third run changes nothing."""
    arguments = (rows, tmp_path / "out", "--column", "image", "--shard-size", GROUP)
    process = begin(*arguments)
    wait_for(lambda: len(list_parts(tmp_path / "out")) >= 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2)  # Ray's workers end when they notice
    before = list_parts(tmp_path / "out")
    assert len(before) < ROWS // GROUP, "the job was over before it was killed"
    finish(begin(*arguments))
    counted = count_images(tmp_path / "out")
    assert counted == expect_once(rows)
    assert before.items() <= list_parts(tmp_path / "out").items()
    assert f"{ROWS:,} images, 0 of them from this run" in finish(begin(*arguments))
    tell("images of a bulk job that is killed and run again: without a row, or with two", ROWS, ROWS - len(counted))


def test_a_worker_that_can_not_write_ends_the_job(begin, rows, tmp_path):
    """In one line that says why, with exit status 1. What is done stays for the next run."""
    output = tmp_path / "out"
    process = begin(rows, output, "--column", "image", "--shard-size", GROUP)
    wait_for(lambda: list_parts(output), process)
    (output / "_temporary").rename(tmp_path / "elsewhere")
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    *progress, last = said.splitlines()
    assert last.startswith("python -m app.bulk: FileNotFoundError: ")
    assert f"{output}/_temporary/" in last
    assert all(" images (" in line for line in progress), said
    assert count_images(output) <= expect_once(rows)


def test_sigterm_ends_the_job_in_one_line(begin, rows, tmp_path):
    """That says how to go on, as Ctrl-C does, with the usual exit status and without Ray's stack."""
    process = begin(rows, tmp_path / "out", "--column", "image", "--shard-size", GROUP)
    wait_for(lambda: list_parts(tmp_path / "out"), process)
    process.terminate()
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    *progress, last = said.splitlines()
    assert last == "python -m app.bulk: stopped; run the same command again to resume"
    assert all(" images (" in line for line in progress), said


def test_a_shard_that_kills_its_worker_each_time_ends_the_job(begin, rows, tmp_path):
    """In one line with its name. A second run does it."""
    arguments = (rows, tmp_path / "out", "--column", "image", "--shard-size", ROWS)
    process = begin(*arguments)
    for _ in range(4):
        wait_for(lambda: find_workers(process.pid), process)
        for worker in find_workers(process.pid):
            worker.kill()
            worker.wait()
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert said.splitlines()[-1] == (
        "python -m app.bulk: no part-000-00000.parquet: the worker died 4 times at each; all other images have a row"
    )
    finish(begin(*arguments))
    assert count_images(tmp_path / "out") == expect_once(rows)
