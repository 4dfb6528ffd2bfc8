"""Compares the service with other ways to serve the same model, on this machine, in one run.

`python -m benchmarks.serving` needs Debian's package wrk and the dependency groups `bench` and `mlserver`, each in its
environment; `make bench` checks and installs them. It starts all services, loads them in turn over loopback, and writes
serving.md and serving.json into benchmarks/results. Then it measures this service alone: its overhead over the model,
photos beside small images, its start and its memory. A selection of `--services` or `--parts` needs another folder
(`--results`), because it would overwrite the complete results.
"""

import json
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from app.runtime.cpu import has_bf16
from benchmarks.comparison import compare
from benchmarks.machine import describe_libraries, describe_machine
from benchmarks.memory import measure_memory
from benchmarks.overhead import measure_overhead
from benchmarks.photos import measure_photos
from benchmarks.pictures import Known, find_version, make_known
from benchmarks.report import make_rows, render_comparison
from benchmarks.services import MLSERVER, Service, list_services
from benchmarks.start import measure_start
from benchmarks.wrk import PROGRAM
from training.options import Parser

RESULTS = Path(__file__).resolve().parent / "results"
PARTS = ("comparison", "overhead", "photos", "start", "memory")
LIBRARIES = (
    "openvino", "tensorflow", "keras", "fastapi", "uvicorn", "litserve", "bentoml", "mosec", "ray", "mlserver",
    "pillow", "numpy",
)  # fmt: skip
STARTS = 5
MARKS = [10_000, 60_000]

INTRODUCTION = """# Serving

`make bench`: all services have the same model ({version}) and the same libraries, except that MLServer needs older
releases of FastAPI and protobuf. TensorFlow Serving is missing, because it is not a Python package.

- There are {rounds} rounds. In each, column by column, wrk loads one service after the other for {seconds} s, in random
  order, on the same cores (closed loop). Figures are medians over the rounds.
- *ours ÷ it* is the median over the rounds of this service's requests ÷ the other's, int8 compared with int8.
- Memory is the proportional set size of all of a service's processes, after a second of load per column, while no other
  service ran. CPU time is that of all processes, too.
- Start is from `exec` to the first correct answer, with the files in the page cache.
- No service writes an access log. What it costs this service is measured below.
- Idle services wait; LitServe and Ray Serve, which are busy while idle, are suspended. BentoML adapts its batching to
  earlier load, so its rounds with one client differ widely.
- MLServer reads no multipart bodies. Instead, it gets the Open Inference Protocol's JSON, with the image in base64.
- This service and the prototype decode JPEGs at a reduced size, in two threads. The others decode them at full size;
  mosec decodes in one process, MLServer in two, Ray Serve in threads.
- Machine: {machine}; {busy:.0f} % busy with other processes just before.
- Libraries: {libraries}.
- Precision: OpenVINO runs {precision}, or int8 where it says so; TensorFlow runs the exported graph in f32. The
  measurements of this service alone, after the comparison, run in {precision}.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; print and write the results; return the exit status."""
    parser = Parser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="duration of each measurement, at least 1")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--services", help="names, separated by commas (default: all)")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to measure, separated by commas")
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="bf16" if has_bf16() else "f32", help="precision of OpenVINO"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args(arguments)
    if options.seconds < 1:
        parser.error(f"argument --seconds: {options.seconds} is less than 1; wrk takes whole seconds")
    services = {service.name: service for service in list_services(options.precision)}
    names = options.services.split(",") if options.services else list(services)
    parts = options.parts.split(",")
    if unknown := (set(names) - services.keys()) | (set(parts) - set(PARTS)):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(services)} and {', '.join(PARTS)}")
    is_whole = set(names) == set(services) and set(parts) == set(PARTS)
    if not is_whole and options.results.resolve() == RESULTS:
        parser.error(f"a part would overwrite all results in {RESULTS}; choose another folder with --results")
    if not shutil.which(PROGRAM):
        print(f"not installed: {PROGRAM}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # to stop suspended services
    version = find_version()
    known = make_known(version)

    facts: dict[str, Any] = {
        "machine": describe_machine(),
        "busy": psutil.cpu_percent(interval=2),
        "libraries": describe_libraries(*LIBRARIES, other=MLSERVER),
        "version": f"{version.parent.name} {version.name}",
        "precision": options.precision,
        "seconds": options.seconds,
        "rounds": options.rounds,
    }
    results = dict(facts)
    text = INTRODUCTION.format(**facts)
    for part in (part for part in PARTS if part in parts):
        found, told = measure(part, services, names, known, seconds=options.seconds, rounds=options.rounds)
        results[part] = found
        text += told
        # after each part, so that a later failure doesn't lose the results
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "serving.md").write_text(text, encoding="utf-8")
        (options.results / "serving.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"\n{text}")
    return 0


def measure(
    part: str, services: dict[str, Service], names: list[str], known: Known, *, seconds: int, rounds: int
) -> tuple[Any, str]:
    """Measure one of `PARTS`; return the figures and their text in Markdown. `names` are the services to compare."""
    ours = services["minimodel"]
    if part == "comparison":
        rows = make_rows(compare([services[name] for name in names], known, seconds=seconds, rounds=rounds))
        return [asdict(row) for row in rows], render_comparison(rows)
    if part == "overhead":
        overhead = measure_overhead(ours, known, seconds=seconds, rounds=rounds)
        return asdict(overhead), f"\n## What the service adds\n\n{overhead.render()}"
    if part == "photos":
        photos = measure_photos(ours, known, seconds=seconds, rounds=rounds)
        return asdict(photos), f"\n## Photos beside small images\n\n{photos.render()}"
    if part == "start":
        start = measure_start(ours, times=STARTS)
        return asdict(start), f"\n## Start\n\n{start.render()}"
    memory = measure_memory(ours, known, marks=MARKS)
    return asdict(memory), f"\n## Memory\n\n{memory.render()}"


if __name__ == "__main__":
    sys.exit(main())
