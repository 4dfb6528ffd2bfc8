"""`python -m app.classify IMAGE…` classifies image files without a server.

Threads have files decoded batch by batch, ahead of the model, which runs while the last results are printed. The `APP_`
environment variables choose the model and its runtime, as they do for the service.
"""

import argparse
import asyncio
import json
import logging
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tqdm import tqdm

from app.api.schemas import describe
from app.classify.image_files import STANDARD_INPUT, find_files, read_file, show_name
from app.errors import ImageTooLargeError, InferenceError, NotReadyError, ServiceError
from app.images.decoders import Decoders
from app.inference.batcher import list_batch_sizes
from app.runtime.load import count_workers
from app.settings import Settings, describe_faults
from app.stdio import discard_output, prepare_streams, tell
from app.versions.loader import make_loader
from app.versions.model import Model, Scores
from app.versions.store import ModelStore

_PROGRAM = "python -m app.classify"
_MAX_DIGITS = 9  # of a count; no model has that many classes

Item = TypeVar("Item")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """Why a file can't be classified: a message, and the API's code or `unreadable_file`."""

    error: str
    code: str


class Decoded(NamedTuple):
    """A file's pixels, (H, W, 3) uint8, or why they can't be decoded."""

    name: str
    image: NDArray[np.uint8] | Failure


class Outcome(NamedTuple):
    """A file's scores, or why it can't be classified."""

    name: str
    result: Scores | Failure


def classify_files(
    model: Model,
    names: Sequence[str],
    decoders: Decoders,
    *,
    batch_size: int,
    workers: int,
    max_bytes: int,
) -> Iterator[list[Outcome]]:
    """Classify files batch by batch, in order. A file that fails does not affect the others.

    Reads files in as many threads as `decoders` has processes; the model runs up to `workers` batches at the same time.
    """

    def decode_batch(batch: list[str]) -> list[Decoded]:
        return [decode(name) for name in batch]

    def decode(name: str) -> Decoded:
        try:
            return Decoded(name, decoders.decode_blocking(read_file(name, max_bytes), model.image_size))
        except ImageTooLargeError as error:
            return Decoded(name, _explain(error, " (limits: APP_MAX_IMAGE_PIXELS, APP_DECODE_TIMEOUT_SECONDS)"))
        except ServiceError as error:
            return Decoded(name, _explain(error))
        except OSError as error:
            return Decoded(name, Failure(error.strerror or str(error), "unreadable_file"))

    def predict(batch: list[Decoded]) -> list[Outcome]:
        images = [decoded.image for decoded in batch if not isinstance(decoded.image, Failure)]
        try:
            scores = iter(model.score(np.stack(images)) if images else ())
        except InferenceError as error:
            failure = _explain(error)
            return [Outcome(name, image if isinstance(image, Failure) else failure) for name, image in batch]
        return [Outcome(name, image if isinstance(image, Failure) else next(scores)) for name, image in batch]

    with ThreadPoolExecutor(decoders.count) as readers, ThreadPoolExecutor(workers) as runners:
        # One task per batch, because the overhead of a task is a notable part of decoding a small file.
        batches = (list(names[start : start + batch_size]) for start in range(0, len(names), batch_size))
        decoded = _run_ahead(readers, decode_batch, batches, workers + decoders.count)
        yield from _run_ahead(runners, predict, decoded, workers)


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
        batch_size = min(
            settings.max_batch_size, math.ceil(len(names) / workers)
        )  # so that a few files use all workers
        model = _load_newest(settings, batch_size)
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
        for batch in classify_files(
            model, names, decoders, batch_size=batch_size, workers=workers, max_bytes=settings.max_upload_bytes
        ):
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
        type=_parse_name,
        metavar="IMAGE",
        help="a file, a folder (its files with an image's file name), or - for standard input",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--top-k", type=_parse_count, default=1, metavar="N", help="number of classes to print (default: 1)"
    )
    options = parser.parse_args(arguments)
    if options.images.count(STANDARD_INPUT) > 1:
        parser.error("standard input can only be read once")
    return options


def _parse_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:_MAX_DIGITS]!r} is no positive number of up to {_MAX_DIGITS} digits")
    return int(text)


def _load_newest(settings: Settings, batch_size: int) -> Model:
    load = make_loader(settings, batch_sizes=list_batch_sizes(batch_size))
    store = ModelStore(settings.model_dir, load, pinned=settings.model_version)
    asyncio.run(store.refresh())
    return store.require_model()


def _write(outcome: Outcome, top_k: int, *, as_json: bool) -> str | None:
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


def _explain(error: ServiceError, remedy: str = "") -> Failure:
    return Failure(f"{error}{remedy}", error.code)


def _run_ahead(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield the result of `work` on each item, in order, and start up to `ahead` items in advance."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


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
