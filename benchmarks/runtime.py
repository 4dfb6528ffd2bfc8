"""Images per second of the shipped model by runtime, precision and batch size, without any service around it.

`python -m benchmarks.runtime` writes runtime.md into benchmarks/results. The runtimes are measured in turn, in rounds,
so that whatever else the machine does meets them all.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple, cast

import numpy as np

from app.contract import METADATA_FILE, ModelMetadata
from app.errors import RefusedVersionError
from app.runtime import Runtime, count_cpus, load_runtime
from app.settings import Precision, RuntimeName
from benchmarks.machine import describe_libraries, describe_machine, has_bf16
from benchmarks.pictures import find_version
from benchmarks.report import draw_table

RESULTS = Path(__file__).parent / "results"
BATCH_SIZES = (1, 8, 32)


class Candidate(NamedTuple):
    """A way to run the model."""

    title: str
    name: RuntimeName
    precision: str


CANDIDATES = (
    Candidate("TensorFlow, the SavedModel's signature", "tensorflow", "auto"),
    Candidate("OpenVINO, f32", "openvino", "f32"),
    Candidate("OpenVINO, bf16", "openvino", "bf16"),
    Candidate("OpenVINO, int8", "openvino", "int8"),
)


def measure(runtimes: dict[str, Runtime], *, seconds: float, rounds: int) -> dict[str, dict[int, float]]:
    """Return the milliseconds that each runtime needs for a batch of each size: medians over all its runs."""
    rng = np.random.default_rng(0)
    shape = next(iter(runtimes.values())).input.shape
    batches = {size: rng.integers(0, 256, (size, *shape), dtype=np.uint8) for size in BATCH_SIZES}
    times: dict[str, dict[int, list[float]]] = {title: {size: [] for size in batches} for title in runtimes}
    for _ in range(rounds):
        for title, runtime in runtimes.items():
            for size, batch in batches.items():
                runtime.predict(batch)  # warms caches that another runtime has filled
                times[title][size] += time_runs(lambda: runtime.predict(batch), seconds)  # noqa: B023
    return {title: {size: 1000 * median(runs) for size, runs in sizes.items()} for title, sizes in times.items()}


def time_runs(run: Callable[[], object], seconds: float) -> list[float]:
    """Run for `seconds`, at least once; return the seconds that each run took."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or not times:
        run()
        times.append(time.perf_counter() - started)
    return times


def render(milliseconds: dict[str, dict[int, float]], left_out: dict[str, str]) -> str:
    """Draw images per second, with the milliseconds a batch, for each runtime; say what was left out and why."""
    header = ["images/s (a batch's time)", *(f"batch {size}" for size in BATCH_SIZES)]
    rows = [
        [title, *(f"{1000 * size / sizes[size]:.0f} ({sizes[size]:.2f} ms)" for size in BATCH_SIZES)]
        for title, sizes in milliseconds.items()
    ]
    rows += [[title, *("–" for _ in BATCH_SIZES)] for title in left_out]
    notes = "".join(f"- {title}: {reason}\n" for title, reason in left_out.items())
    return draw_table(header, rows) + (f"\nLeft out:\n\n{notes}" if notes else "")


def load_candidates(version: Path) -> tuple[dict[str, Runtime], dict[str, str]]:
    """Load what this machine can run; return it by title, and the reason for what it can't."""
    runtimes: dict[str, Runtime] = {}
    left_out: dict[str, str] = {}
    for candidate in CANDIDATES:
        if candidate.precision == "bf16" and not has_bf16():
            left_out[candidate.title] = "this processor has no bfloat16; it would be emulated, slower than f32"
            continue
        try:
            runtimes[candidate.title] = load_runtime(
                version, name=candidate.name, precision=cast(Precision, candidate.precision), threads=0
            )
        except RefusedVersionError as error:
            left_out[candidate.title] = str(error)
    return runtimes, left_out


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args()
    version = find_version()
    metadata = ModelMetadata.model_validate_json((version / METADATA_FILE).read_bytes())
    runtimes, left_out = load_candidates(version)
    text = (
        f"# The runtime alone\n\n`python -m benchmarks.runtime`: {metadata.name} {metadata.version}, {count_cpus()}"
        f" threads, {options.rounds} rounds in turn; medians.\n\n- Machine: {describe_machine()}.\n"
        f"- Libraries: {describe_libraries('openvino', 'tensorflow', 'numpy')}.\n\n"
    )
    text += render(measure(runtimes, seconds=options.seconds, rounds=options.rounds), left_out)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "runtime.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
