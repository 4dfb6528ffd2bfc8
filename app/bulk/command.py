"""`python -m app.bulk INPUT OUTPUT` classifies a data set into Parquet files, and resumes where it was stopped.

The `APP_` environment variables choose the model and its runtime, as they do for the service.
"""

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NoReturn

import pyarrow as pa
from pydantic import ValidationError
from tqdm import tqdm

from app.bulk.inputs import list_input
from app.bulk.job import connect, run_job
from app.bulk.results import Manifest, Results
from app.bulk.storage import JobError, locate
from app.bulk.worker import Job
from app.errors import NotReadyError
from app.settings import Settings, describe_faults
from app.stdio import parse_count, parse_name, show_name, tell
from app.versions.store import load_newest

_PROGRAM = "python -m app.bulk"
_SHARD_SIZE = 4096
_TOP_K = 5
_LOG_SECONDS = 10  # between lines of progress where there is no terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify a data set; return the exit status.

    That is 0 if all images have a row, 1 if the job failed, and 2 if the command line, a setting, the model, INPUT,
    OUTPUT or the cluster is invalid.
    """
    options = _parse(arguments)
    logging.basicConfig(level="WARNING", format=f"{_PROGRAM}: %(message)s")
    failed = 0
    with ExitStack() as stack:
        try:
            job, results, new = _prepare(options)
            is_done = not (new.num_rows or results.list_shards()[1])
            cores = 0 if is_done else stack.enter_context(connect(options.cores))
            results.begin(job.manifest)
            results.add_images(new, options.shard_size)
        except ValidationError as error:
            return _complain("; ".join(describe_faults(error)))
        except JobError as error:
            return _complain(str(error))
        except NotReadyError:  # the store has logged the reason
            return 2
        done, missing = results.list_shards()
        before, total = sum(shard.rows for shard in done), sum(shard.rows for shard in missing)
        if missing:
            try:
                with _show_progress(before, total) as progress:
                    for report in run_job(job, missing, cores):
                        progress.update(report.images)
                        failed += report.failed
            except JobError as error:
                tell(f"{_PROGRAM}: {error}")
                return 1
    results.clean()
    errors = f", {failed:,} of them with an error" if failed else ""
    tell(f"{show_name(options.output)}: {before + total:,} images, {total:,} of them from this run{errors}")
    return 0


def _prepare(options: argparse.Namespace) -> tuple[Job, Results, pa.Table]:
    """Check everything that can be checked before Ray starts, and find the images that no earlier run has listed."""
    source, results = locate(options.input), Results(locate(options.output))
    settings = Settings()
    model = load_newest(settings, [1])
    top_k = options.top_k or min(_TOP_K, model.num_classes)
    if top_k > model.num_classes:
        raise JobError(f"--top-k {top_k}: the model has {model.num_classes} classes")
    folder = (model.folder or settings.model_dir).absolute()  # its name is the version, so links stay
    manifest = Manifest.of(folder, model.metadata, source, column=options.column, top_k=top_k)
    results.check(manifest)
    new = results.find_new(list_input(source, column=options.column, without=results.folder))
    settings = settings.model_copy(update={"model_dir": folder, "api_keys": ()})
    # Absolute, because workers may run in another folder; a URL as it was given, because it may have options.
    input_name, output_name = (
        str(location) if location.is_local else name
        for location, name in ((source, options.input), (results.folder, options.output))
    )
    return Job(input_name, output_name, manifest, settings), results, new


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Classify a data set on Ray. Run it again with the same OUTPUT to resume it.",
        epilog="RAY_ADDRESS is the cluster (default: this machine). APP_MODEL_DIR is the folder of models (default: "
        "models). Other APP_ settings of the model apply too.",
    )
    parser.add_argument("input", type=parse_name, metavar="INPUT", help="a folder, a file, a pattern or a URL of one")
    parser.add_argument("output", type=parse_name, metavar="OUTPUT", help="a folder for Parquet files, or its URL")
    parser.add_argument("--column", metavar="NAME", help="INPUT is Parquet files; this column holds image files")
    parser.add_argument(
        "--top-k", type=parse_count, metavar="N", help=f"number of classes in `predictions` (default: up to {_TOP_K})"
    )
    parser.add_argument(
        "--shard-size", type=parse_count, default=_SHARD_SIZE, metavar="N",
        help=f"number of images in a file of results (default: {_SHARD_SIZE})",
    )  # fmt: skip
    parser.add_argument("--cores", type=parse_count, metavar="N", help="cores of a worker (default: up to 4)")
    return parser.parse_args(arguments)


def _show_progress(before: int, total: int) -> "tqdm[NoReturn]":
    """Show how many images are done, how many a second, and the time left; without a terminal, line by line."""
    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=before + total,
        initial=before,
        unit=" images",
        bar_format="{n:,} of {total:,} images ({percentage:.0f} %), {rate_noinv_fmt}, {remaining} left",
        mininterval=0.1 if is_terminal else _LOG_SECONDS,
        file=sys.stderr if is_terminal else _Lines(),
    )


class _Lines(io.TextIOBase):
    """Turns what overwrites a line of a terminal into lines of a log."""

    def write(self, text: str) -> int:
        """Write one state of the progress."""
        if line := text.strip():
            tell(line)
        return len(text)


def _complain(message: str) -> int:
    tell(f"{_PROGRAM}: {message}")
    return 2
