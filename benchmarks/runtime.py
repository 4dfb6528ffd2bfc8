"""Images per second of the shipped model by runtime, precision and batch size, without a service.

Measured with one caller, whose batch gets all threads, and with one caller per worker, whose batches get one thread
each, which is how the service calls the runtime under load.

`python -m benchmarks.runtime` writes runtime.md into benchmarks/results. The runtimes are measured in turn, in
rounds, so that other load on the machine affects all of them.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from app.contract import METADATA_FILE, ModelMetadata, Precision, RuntimeName
from app.errors import RefusedVersionError
from app.runtime.cpu import count_cpus, has_bf16
from app.runtime.load import Images, Runtime, count_workers, load_runtime
from benchmarks.machine import describe_libraries, describe_machine
from benchmarks.pictures import find_version
from training.table import draw_table

RESULTS = Path(__file__).parent / "results"
BATCH_SIZES = (1, 8, 32)


class Candidate(NamedTuple):
    """A way to run the model."""

    title: str
    name: RuntimeName
    precision: Precision


CANDIDATES = (
    Candidate("TensorFlow, the SavedModel's signature", "tensorflow", "auto"),
    Candidate("OpenVINO, f32", "openvino", "f32"),
    Candidate("OpenVINO, bf16", "openvino", "bf16"),
    Candidate("OpenVINO, int8", "openvino", "int8"),
)


class Contender(NamedTuple):
    """A loaded runtime, and the number of concurrent callers."""

    runtime: Runtime
    callers: int


class Pace(NamedTuple):
    """Images per second of all callers together, and the milliseconds per batch of one."""

    per_second: float
    milliseconds: float


def measure(contenders: dict[str, Contender], *, seconds: float, rounds: int) -> dict[str, dict[int, Pace]]:
    """Return the pace of each contender for each batch size, from the median time of its batches."""
    shape = next(iter(contenders.values())).runtime.input.shape
    batches = {size: make_batch(size, shape) for size in BATCH_SIZES}
    times: dict[str, dict[int, list[float]]] = {title: {size: [] for size in batches} for title in contenders}
    for _ in range(rounds):
        for title, (runtime, callers) in contenders.items():
            for size, batch in batches.items():
                predict = runtime.predict if callers > 1 else runtime.predict_alone or runtime.predict
                run = partial(predict, batch)
                run()  # refills the caches after another runtime
                times[title][size] += time_runs(run, seconds, callers)
    return {
        title: {size: _find_pace(runs, size, contenders[title].callers) for size, runs in sizes.items()}
        for title, sizes in times.items()
    }


def make_batch(size: int, shape: tuple[int, ...]) -> Images:
    """Make `size` images of noise; the content does not affect a model's speed."""
    return np.random.default_rng(0).integers(0, 256, (size, *shape), dtype=np.uint8)


def time_runs(run: Callable[[], object], seconds: float, callers: int = 1) -> list[float]:
    """Call `run` in `callers` threads for `seconds`, at least once each; return the seconds of each call."""

    def call(_: int) -> list[float]:
        times: list[float] = []
        while (started := time.perf_counter()) < end or not times:
            run()
            times.append(time.perf_counter() - started)
        return times

    with ThreadPoolExecutor(callers) as threads:
        end = time.perf_counter() + seconds
        return list(chain.from_iterable(threads.map(call, range(callers))))


def render(paces: dict[str, dict[int, Pace]], left_out: dict[str, str]) -> str:
    """Render images per second and milliseconds per batch of each contender, and what was left out and why."""
    header = ["images/s (time per batch)", *(f"batch {size}" for size in BATCH_SIZES)]
    rows = [
        [title, *(f"{sizes[size].per_second:.0f} ({sizes[size].milliseconds:.2f} ms)" for size in BATCH_SIZES)]
        for title, sizes in paces.items()
    ]
    rows += [[title, *("–" for _ in BATCH_SIZES)] for title in left_out]
    notes = "".join(f"- {title}: {reason}\n" for title, reason in left_out.items())
    return draw_table(header, rows, numbers=True) + (f"\nLeft out:\n\n{notes}" if notes else "")


def load_candidates(version: Path) -> tuple[dict[str, Contender], dict[str, str]]:
    """Load what this machine can run; return it by title, and the reasons for what it can't."""
    contenders: dict[str, Contender] = {}
    left_out: dict[str, str] = {}
    for candidate in CANDIDATES:
        if candidate.precision == "bf16" and not has_bf16():
            left_out[candidate.title] = "this CPU has no bfloat16; it would be emulated, slower than f32"
            continue
        try:
            runtime = load_runtime(version, name=candidate.name, precision=candidate.precision, threads=0)
        except RefusedVersionError as error:
            left_out[candidate.title] = str(error)
            continue
        contenders[candidate.title] = Contender(runtime, 1)
        if (workers := count_workers(candidate.name, 0)) > 1:
            contenders[f"{candidate.title}, one batch per thread"] = Contender(runtime, workers)
    return contenders, left_out


def _find_pace(runs: list[float], size: int, callers: int) -> Pace:
    seconds = median(runs)
    return Pace(callers * size / seconds, 1000 * seconds)


def main() -> None:
    """Measure; print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1, help="duration of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args()
    version = find_version()
    metadata = ModelMetadata.model_validate_json((version / METADATA_FILE).read_bytes())
    contenders, left_out = load_candidates(version)
    text = (
        f"# The runtime alone\n\n`python -m benchmarks.runtime`: {metadata.name} {metadata.version}, {count_cpus()}"
        f" threads, medians of {options.rounds} rounds in turn.\nWith one caller, whose batch gets all threads;"
        ' or with one caller per thread ("one batch per thread"),\nwhich is how the service runs the model under load.'
        f"\n\n- Machine: {describe_machine()}.\n"
        f"- Libraries: {describe_libraries('openvino', 'tensorflow', 'numpy')}.\n\n"
    )
    text += render(measure(contenders, seconds=options.seconds, rounds=options.rounds), left_out)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "runtime.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
