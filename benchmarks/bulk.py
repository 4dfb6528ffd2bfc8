"""Images per second of `python -m app.bulk` and of `python -m app.classify`, and memory of a run over Parquet files.

`python -m benchmarks.bulk` writes bulk.md into benchmarks/results. Both commands classify the same folders, one after
the other, so that other load on the machine affects both. The start of each is measured on a few images, and
subtracted. Listing the images and each step of an image are measured alone. From these follows how long ten million
images take on more cores, what the storage must give, and which step is the bound.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from app.bulk.inputs import list_input
from app.bulk.reading import Reader
from app.bulk.results import Manifest, Results
from app.bulk.storage import locate
from app.images.decoders import Decoders
from app.inference.batcher import list_batch_sizes
from app.runtime.load import count_workers
from app.settings import Settings
from app.versions.loader import make_loader
from app.versions.model import Model
from benchmarks.machine import describe_libraries, describe_machine
from benchmarks.pictures import MEDIUM, MODELS, ROOT, SMALL, Kind, find_version, make_pictures
from benchmarks.runtime import make_batch, time_runs
from training.table import draw_table

RESULTS = Path(__file__).parent / "results"
KINDS: dict[str, Kind] = {"photographs, 640 × 480 JPEG": MEDIUM, "small images, 32 × 32 PNG": SMALL}
COUNT, ROWS = 20_000, 200_000
FEW = 64
SHARD_SIZE = 4096
ROWS_PER_GROUP, ROWS_PER_FILE = 1000, 20_000
CORES = (1, 16, 128)
IMAGES = 10_000_000
STEP_SECONDS = 3
PERIOD_SECONDS = 0.2
_HOUR_SECONDS = 3600


class Round(NamedTuple):
    """Results of one round: images per second, and the seconds that a start takes."""

    bulk: float
    classify: float
    bulk_start: float
    classify_start: float

    @property
    def ratio(self) -> float:
        """The speed of bulk as a fraction of that of classify."""
        return self.bulk / self.classify


class Costs(NamedTuple):
    """What an image costs on one core, in milliseconds, and its size. One process lists all images; the rest scales."""

    list_ms: float
    read_ms: float
    decode_ms: float
    model_ms: float
    file_bytes: float

    def find_bound(self, cores: int) -> str:
        """Return the step that takes longest on this many cores."""
        listing = self.list_ms * cores  # while one process lists, the other cores wait
        steps = {"listing": listing, "reading": self.read_ms, "decoding": self.decode_ms, "the model": self.model_ms}
        return max(steps, key=lambda step: steps[step])


class Memory(NamedTuple):
    """Rows of a run over Parquet files, the most memory of all of its processes in MiB, and its seconds."""

    rows: int
    peak_mib: float
    seconds: float


def write_folder(folder: Path, kind: Kind, count: int) -> None:
    """Write `count` image files, which share the content of a few."""
    folder.mkdir(parents=True)
    pictures = make_pictures(kind)
    ending = kind[0].lower()
    for number in range(count):
        path = folder / f"{number:06}.{ending}"
        if number < len(pictures):
            path.write_bytes(pictures[number])
        else:
            path.hardlink_to(folder / f"{number % len(pictures):06}.{ending}")


def write_parquet(folder: Path, kind: Kind, rows: int) -> None:
    """Write Parquet files with `rows` images in the column `image`."""
    folder.mkdir(parents=True)
    pictures = make_pictures(kind)
    schema = pa.schema([("image", pa.binary())])
    for start in range(0, rows, ROWS_PER_FILE):
        count = min(ROWS_PER_FILE, rows - start)
        table = pa.table({"image": [pictures[row % len(pictures)] for row in range(count)]}, schema=schema)
        path = folder / f"{start:08}.parquet"
        pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, use_dictionary=False, compression="none")


def start_bulk(source: Path, output: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start `python -m app.bulk` on a Ray of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "app.bulk", str(source), str(output), *arguments],
        cwd=ROOT, env=environment | {"APP_MODEL_DIR": str(MODELS)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def finish_bulk(process: "subprocess.Popen[str]", output: Path, count: int) -> None:
    """Wait for the command, and check that it has classified `count` images."""
    _, said = process.communicate()
    labels = pq.read_table(output, columns=["label"])["label"].to_pylist() if process.returncode == 0 else []
    if len(labels) != count or None in labels:
        sys.exit(f"{count} images gave {len(labels)} rows: {said}")


def time_bulk(source: Path, count: int) -> float:
    """Return the seconds that `python -m app.bulk` takes on a folder of `count` images."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        process = start_bulk(source, Path(folder, "out"))
        process.wait()
        seconds = time.perf_counter() - begun
        finish_bulk(process, Path(folder, "out"), count)
    return seconds


def time_classify(source: Path, count: int) -> float:
    """Return the seconds that `python -m app.classify` takes on a folder of `count` images."""
    environment = os.environ | {"APP_MODEL_DIR": str(MODELS)}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "app.classify", str(source)],
        cwd=ROOT, env=environment, capture_output=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    if (lines := done.stdout.count(b"\n")) != count:
        sys.exit(f"{count} images gave {lines} lines")
    return seconds


def measure_speed(folder: Path, kind: Kind, *, count: int, rounds: int) -> list[Round]:
    """Measure both commands in turn."""
    few, whole = folder / "few", folder / "whole"
    write_folder(few, kind, FEW)
    write_folder(whole, kind, count)

    def measure(command: Callable[[Path, int], float]) -> tuple[float, float]:
        start = command(few, FEW)
        return (count - FEW) / (command(whole, count) - start), start

    found = []
    for _ in range(rounds):
        (classify, classify_start), (bulk, bulk_start) = measure(time_classify), measure(time_bulk)
        found.append(Round(bulk, classify, bulk_start, classify_start))
    return found


def list_images(folder: Path) -> None:
    """List images as the command does before its workers start."""
    manifest = Manifest(input="", column=None, model="", version=1, digest="", top_k=1)
    with tempfile.TemporaryDirectory() as output:
        results = Results(locate(output))
        results.begin(manifest)
        listing = list_input(locate(str(folder)), column=None, without=results.folder)
        results.add_images(results.find_new(listing), SHARD_SIZE)
        results.list_shards()


def measure_costs(folder: Path, model: Model, settings: Settings, *, count: int) -> Costs:
    """Measure listing, reading, decoding and the model, each alone and for one core."""
    few, whole = folder / "few", folder / "whole"
    list_ms = _time(lambda: list_images(whole)) / count
    files = sorted(few.iterdir())
    reader = Reader(locate(str(few)), column=None, max_bytes=settings.max_upload_bytes, requests=1)
    items = [{"path": str(file)} for file in files]
    read_ms = _time(lambda: [image.load() for image in reader.images(items)]) / len(files)
    data = [file.read_bytes() for file in files]
    decoders = Decoders(
        1,
        max_pixels=settings.max_image_pixels,
        max_bytes=settings.max_upload_bytes,
        timeout_seconds=settings.decode_timeout_seconds,
    )
    with decoders:
        decode_ms = _time(lambda: [decoders.decode_blocking(one, model.image_size) for one in data]) / len(data)
    workers = count_workers(settings.runtime, settings.inference_threads)
    batch = make_batch(settings.max_batch_size, model.metadata.input.shape)
    runs = time_runs(lambda: model.runtime.predict(batch), STEP_SECONDS, workers)
    return Costs(list_ms, read_ms, decode_ms, 1000 * median(runs) / len(batch), sum(map(len, data)) / len(data))


def measure_memory(folder: Path, rows: int) -> Memory:
    """Classify Parquet files with small images; return the most memory of the command, of Ray and of the workers."""
    source, output = folder / f"rows-{rows}", folder / f"out-{rows}"
    write_parquet(source, SMALL, rows)
    begun = time.perf_counter()
    peak = 0
    process = start_bulk(source, output, "--column", "image")
    while process.poll() is None:
        peak = max(peak, read_memory(process.pid))
        time.sleep(PERIOD_SECONDS)
    seconds = time.perf_counter() - begun
    finish_bulk(process, output, rows)
    return Memory(rows, peak / 2**20, seconds)


def read_memory(process: int) -> int:
    """Return the bytes that a process and all below it take (PSS: what they share counts once)."""
    total = 0
    try:
        top = psutil.Process(process)
        for one in [top, *top.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except psutil.Error:  # it has ended meanwhile
                continue
    except psutil.Error:
        return total
    return total


def render(speed: dict[str, list[Round]], costs: dict[str, Costs], memory: list[Memory], cores: int) -> str:
    """Render the tables, with the cores of the machine that measured them."""
    text = io.StringIO()
    header = ["", "`app.bulk`, images/s", "`app.classify`, images/s", "ratio", "start of bulk", "start of classify"]
    rows = [
        [name, *(f"{_median(found, field):.{digits}f}{unit}" for field, digits, unit in _COLUMNS)]
        for name, found in speed.items()
    ]
    text.write(f"## Speed\n\n{draw_table(header, rows, numbers=True)}\n")
    header = ["", "listing", "reading", "decoding", "the model", "file"]
    rows = [
        [name, *(f"{ms:.3f} ms" for ms in one[:4]), f"{one.file_bytes / 1000:.1f} kB"] for name, one in costs.items()
    ]
    text.write(f"## An image on one core\n\n{draw_table(header, rows, numbers=True)}\n")
    header = ["rows", "peak memory of all processes", "time"]
    rows = [[f"{one.rows:,}", f"{one.peak_mib:,.0f} MiB", f"{one.seconds:.0f} s"] for one in memory]
    text.write(f"## Memory, Parquet files of small images\n\n{draw_table(header, rows, numbers=True)}\n")
    header = ["", "cores", "start", "listing", "classification", "together", "images to read", "most time"]
    rows = []
    for name, found in speed.items():
        start, listing = _median(found, "bulk_start"), IMAGES * costs[name].list_ms / 1000
        all_cores = IMAGES / _median(found, "bulk") - listing  # of this machine
        for count in CORES:
            work = all_cores * cores / count
            times = map(_show_time, (start, listing, work, start + listing + work))
            megabytes = IMAGES * costs[name].file_bytes / work / 1e6
            rows.append([name, str(count), *times, f"{megabytes:,.1f} MB/s", costs[name].find_bound(count)])
    text.write(
        f"## Ten million images, computed from the rates above\n\n{draw_table(header, rows, numbers=True)}\n"
        "One process lists the images, here in a local folder. If the storage gives less than the images to read,"
        " reading takes\nmost time.\n"
    )
    return text.getvalue()


_COLUMNS = (
    ("bulk", 0, ""),
    ("classify", 0, ""),
    ("ratio", 2, ""),
    ("bulk_start", 1, " s"),
    ("classify_start", 1, " s"),
)


def _median(rounds: list[Round], field: str) -> float:
    return median(getattr(one, field) for one in rounds)


def _show_time(seconds: float) -> str:
    if seconds >= _HOUR_SECONDS:
        return f"{seconds / _HOUR_SECONDS:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 10 * 60 else f"{seconds:.0f} s"


def _time(work: Callable[[], object]) -> float:
    """Return the milliseconds that `work` takes, the median of many runs, after one that is not counted."""
    work()
    runs: list[float] = []
    end = time.perf_counter() + STEP_SECONDS
    while not runs or time.perf_counter() < end:
        begun = time.perf_counter()
        work()
        runs.append(1000 * (time.perf_counter() - begun))
    return median(runs)


def main() -> None:
    """Measure; print and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bulk", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="images in a folder")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the Parquet files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args()
    settings = Settings(model_dir=MODELS)
    model = make_loader(settings, batch_sizes=list_batch_sizes(settings.max_batch_size))(find_version())
    cores = count_workers(settings.runtime, settings.inference_threads)
    speed, costs = {}, {}
    with tempfile.TemporaryDirectory() as name:
        for index, (title, kind) in enumerate(KINDS.items()):
            folder = Path(name, str(index))
            speed[title] = measure_speed(folder, kind, count=options.count, rounds=options.rounds)
            costs[title] = measure_costs(folder, model, settings, count=options.count)
        memory = [measure_memory(Path(name), rows) for rows in (options.rows // 10, options.rows)]
    text = (
        f"# `python -m app.bulk`\n\n`python -m benchmarks.bulk`: {options.count:,} images of each kind,"
        f" {options.rounds} rounds in turn with `python -m app.classify`,\n"
        "medians, without the commands' start;"
        f" {model.metadata.name} {model.metadata.version}, {model.runtime.name}, {model.runtime.precision},"
        f" batches of {settings.max_batch_size}.\n\n- Machine: {describe_machine()}.\n"
        f"- Libraries: {describe_libraries('ray', 'pyarrow', 'openvino', 'pillow', 'numpy')}.\n\n"
    )
    text += render(speed, costs, memory, cores)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "bulk.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
