"""`python -m app.classify IMAGE…` classifies image files without a server.

The `APP_` environment variables choose the model and its runtime, as they do for the service.
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from pydantic import ValidationError
from tqdm import tqdm

from app.api.schemas import describe
from app.classify.image_files import STANDARD_INPUT, find_files, read_file
from app.errors import NotReadyError
from app.images.decoders import Decoders
from app.inference.batcher import list_batch_sizes
from app.inference.pipeline import Failure, Outcome, classify_images
from app.runtime.load import count_workers
from app.settings import Settings, describe_faults
from app.stdio import discard_output, parse_count, parse_name, prepare_streams, show_name, tell
from app.versions.store import load_newest

_PROGRAM = "python -m app.classify"


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify files; return the exit status.

    That is 1 if an image failed or a folder has none, and 2 if the command line, a setting or the model is invalid.
    """
    options = _parse(arguments)
    logging.basicConfig(level="WARNING", format=f"{_PROGRAM}: %(message)s")
    names, missing, skipped = find_files(options.images)
    for line in [*missing, *skipped]:
        tell(line)
    if not names:
        return 1
    try:
        settings = Settings()
        workers = count_workers(settings.runtime, settings.inference_threads)
        decoders = Decoders(
            settings.decoders,
            max_pixels=settings.max_image_pixels,
            max_bytes=settings.max_upload_bytes,
            timeout_seconds=settings.decode_timeout_seconds,
        )
        # Smaller batches for a few files, so that all workers have one.
        batch_size = min(settings.max_batch_size, math.ceil(len(names) / workers))
        model = load_newest(settings, list_batch_sizes(batch_size))
    except ValidationError as error:
        return _complain("; ".join(describe_faults(error)))
    except NotReadyError:  # the store has logged the reason
        return 2
    if options.top_k > model.num_classes:
        return _complain(f"--top-k {options.top_k}: the model has {model.num_classes} classes")

    failed = 0
    # Show the bar for folders; None shows it only if standard error is a terminal.
    hidden = None if len(names) > len(options.images) else True
    with decoders, tqdm(total=len(names), unit=" images", disable=hidden) as progress:
        read = partial(read_file, max_bytes=settings.max_upload_bytes)
        for batch in classify_images(model, names, read, decoders, batch_size=batch_size, workers=workers):
            written = [_write(outcome, options.top_k, as_json=options.json) for outcome in batch]
            if lines := [line for line in written if line is not None]:
                progress.write("\n".join(lines))
                sys.stdout.flush()
            failures = [f"{show_name(name)}: {result.error}" for name, result in batch if isinstance(result, Failure)]
            if failures:
                tell("\n".join(failures))
            failed += len(failures)
            progress.update(len(batch))
    if failed and len(names) > 1:
        tell(f"{failed} of {len(names)} images failed")
    return 1 if failed or missing else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Classify images. Prints the name, label and probability of each, separated by tabs.",
        epilog="APP_MODEL_DIR is the folder of models (default: models). Other APP_ settings of the model apply too.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=parse_name,
        metavar="IMAGE",
        help="a file, a folder (its files with an image's file name), or - for standard input",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--top-k", type=parse_count, default=1, metavar="N", help="number of classes to print (default: 1)"
    )
    options = parser.parse_args(arguments)
    if options.images.count(STANDARD_INPUT) > 1:
        parser.error("standard input can only be read once")
    return options


def _write(outcome: Outcome[str], top_k: int, *, as_json: bool) -> str | None:
    """Return the line for one file; None for a failure in text mode, whose reason goes to standard error."""
    name, result = outcome
    if as_json:
        fields: Mapping[str, object] = result._asdict() if isinstance(result, Failure) else describe(result, top_k)
        return json.dumps({"image": name, **fields})  # ASCII, because file names need not be valid Unicode
    if isinstance(result, Failure):
        return None
    columns = [f"{label}\t{probability:.2f}" for label, probability in result.rank(top_k)]
    mark = ["unfamiliar"] if result.is_unfamiliar else []
    return "\t".join([show_name(name), *columns, *mark])


def _complain(message: str) -> int:
    tell(f"{_PROGRAM}: {message}")
    return 2


def run() -> int:
    """Run `main` and return the exit status. Standard streams may be closed, full or unable to encode a name."""
    try:
        prepare_streams()
        status = main()
        sys.stdout.flush()
    except OSError as error:  # writing to standard output failed
        if not isinstance(error, BrokenPipeError):  # the reader has stopped, like `head`
            _complain(f"can't write: {error.strerror}")
        discard_output()
        status = 1
    return status
