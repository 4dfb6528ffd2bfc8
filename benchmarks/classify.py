"""Images per second of `python -m app.classify` on a folder of small images, compared with the runtime alone.

`python -m benchmarks.classify` writes classify.md into benchmarks/results. The start of the command is measured on a
folder with one batch per worker, and subtracted. The runtime gets batches of the same size from one caller per worker,
which is the most that the command could reach. The two alternate, so that other load on the machine affects both.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from PIL import Image

from app.images.decoders import Decoders
from app.inference.batcher import list_batch_sizes
from app.runtime.load import count_workers
from app.settings import Settings
from app.versions.loader import make_loader
from app.versions.model import Model
from benchmarks.machine import describe_libraries, describe_machine
from benchmarks.pictures import MODELS, ROOT, SMALL, find_version, make_pictures
from benchmarks.runtime import make_batch, time_runs
from training.table import draw_table

RESULTS = Path(__file__).parent / "results"
COUNT = 10_000
NOISE = 4.0  # standard deviation; makes images distinct, with the file sizes of photographs


class Round(NamedTuple):
    """Results of one round, in images per second."""

    command: float
    runtime: float
    start_seconds: float

    @property
    def ratio(self) -> float:
        """The command's speed as a fraction of the runtime's."""
        return self.command / self.runtime


def write_pictures(folder: Path, count: int) -> None:
    """Write `count` small images made from the samples, PNG and JPEG in turn."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    size = SMALL[1]
    with Decoders(1, max_pixels=size[0] * size[1], max_bytes=2**20, timeout_seconds=10) as decoders:
        samples = [decoders.decode_blocking(data, size) for data in make_pictures(SMALL)]
    for number in range(count):
        noisy = samples[number % len(samples)] + rng.normal(0, NOISE, (*size, 3))
        kind = ("png", "jpeg")[number % 2]
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.{kind}")


def time_command(folder: Path, count: int) -> float:
    """Return the seconds that the command takes on a folder of `count` images."""
    command = [sys.executable, "-m", "app.classify", str(folder)]
    begun = time.perf_counter()
    environment = os.environ | {"APP_MODEL_DIR": str(MODELS)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - begun
    if (lines := done.stdout.count(b"\n")) != count:
        sys.exit(f"{count} images gave {lines} lines")
    return seconds


def measure(model: Model, settings: Settings, *, count: int, rounds: int) -> list[Round]:
    """Measure the command and the runtime in turn."""
    workers = count_workers(settings.runtime, settings.inference_threads)
    few = workers * settings.max_batch_size
    batch = make_batch(settings.max_batch_size, model.metadata.input.shape)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        start, whole = Path(folder, "start"), Path(folder, "whole")
        write_pictures(start, few)
        write_pictures(whole, count)
        for _ in range(rounds):
            start_seconds = time_command(start, few)
            seconds = time_command(whole, count) - start_seconds
            runs = time_runs(lambda: model.runtime.predict(batch), seconds, workers)
            found.append(Round((count - few) / seconds, workers * len(batch) / fmean(runs), start_seconds))
    return found


def render(rounds: list[Round]) -> str:
    """Render a row for each round and one for the medians."""
    header = ["", "`python -m app.classify`, images/s", "the runtime alone, images/s", "ratio", "start"]
    named = [(str(number), one) for number, one in enumerate(rounds, 1)]
    rows = [
        [name, f"{r.command:.0f}", f"{r.runtime:.0f}", f"{r.ratio:.2f}", f"{r.start_seconds:.1f} s"]
        for name, r in named
    ]
    medians = [
        median(getattr(one, name) for one in rounds) for name in ("command", "runtime", "ratio", "start_seconds")
    ]
    rows.append(["median", *(f"{medians[i]:.0f}" for i in (0, 1)), f"{medians[2]:.2f}", f"{medians[3]:.1f} s"])
    return draw_table(header, rows, numbers=True)


def main() -> None:
    """Measure; print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classify", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="images in the folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args()
    settings = Settings(model_dir=MODELS)
    model = make_loader(settings, batch_sizes=list_batch_sizes(settings.max_batch_size))(find_version())
    text = (
        f"# `python -m app.classify` and the runtime alone\n\n`python -m benchmarks.classify`: {options.count:,}"
        f" images of 32 × 32, half PNG and half JPEG; {model.metadata.name} {model.metadata.version},"
        f" {model.runtime.name}, {model.runtime.precision}, batches of {settings.max_batch_size},"
        f" {count_workers(settings.runtime, settings.inference_threads)} at once;\n"
        f"{options.rounds} rounds in turn, without the command's start.\n\n- Machine: {describe_machine()}.\n"
        f"- Libraries: {describe_libraries('openvino', 'pillow', 'numpy')}.\n\n"
    )
    text += render(measure(model, settings, count=options.count, rounds=options.rounds))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "classify.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
