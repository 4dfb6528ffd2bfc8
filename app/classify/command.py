"""`python -m app.classify IMAGE…`: what images show, without a server.

Files are decoded in threads, a batch at a time and ahead of the model, which runs batches while the last ones are
printed. The environment's `APP_` variables say which model and how it runs, as they do for the service.
"""

import argparse
import asyncio
import json
import logging
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tqdm import tqdm

from app.api.schemas import Classification
from app.classify.image_files import STANDARD_INPUT, find_files, read_file, show_name
from app.classify.stdio import discard_output, prepare_streams, tell
from app.errors import ImageTooLargeError, InferenceError, NotReadyError, ServiceError
from app.http.problems import KINDS
from app.images.decode import decode_image
from app.inference.batcher import list_batch_sizes
from app.runtime.load import count_lanes
from app.settings import Settings, describe_faults
from app.versions.loader import make_loader
from app.versions.model import Model, Scores
from app.versions.store import ModelStore

_PROGRAM = "python -m app.classify"
_MAX_DIGITS = 9  # of a count; no model has as many classes

Item = TypeVar("Item")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """Why a file can't be classified: for people, and as the API calls it, which has no word for unreadable files."""

    error: str
    code: str


class Decoded(NamedTuple):
    """A file's pixels (H, W, 3), or why it has none."""

    name: str
    image: NDArray[np.uint8] | Failure


class Outcome(NamedTuple):
    """What a file shows, or why that can't be said."""

    name: str
    result: Scores | Failure


def classify_files(
    model: Model,
    names: Sequence[str],
    *,
    batch_size: int,
    lanes: int,
    threads: int,
    max_bytes: int,
    max_pixels: int,
) -> Iterator[list[Outcome]]:
    """Classify files batch by batch, in order. One that can't be read has its reason, and spoils no other.

    `threads` decode for `lanes` batches that the model runs beside each other.
    """

    def decode_batch(batch: list[str]) -> list[Decoded]:
        return [decode(name) for name in batch]

    def decode(name: str) -> Decoded:
        try:
            return Decoded(name, decode_image(read_file(name, max_bytes), model.image_size, max_pixels=max_pixels))
        except ImageTooLargeError as error:
            return Decoded(name, _explain(error, "; APP_MAX_IMAGE_PIXELS sets how many"))
        except ServiceError as error:
            return Decoded(name, _explain(error))
        except OSError as error:
            return Decoded(name, Failure(error.strerror or str(error), "unreadable_file"))

    def predict(batch: list[Decoded]) -> list[Outcome]:
        images = [decoded.image for decoded in batch if not isinstance(decoded.image, Failure)]
        try:
            rows = iter(model.predict(np.stack(images)) if images else ())
        except InferenceError as error:
            failure = _explain(error)
            return [Outcome(name, image if isinstance(image, Failure) else failure) for name, image in batch]
        return [
            Outcome(name, image if isinstance(image, Failure) else Scores(next(rows), model, image))
            for name, image in batch
        ]

    with ThreadPoolExecutor(threads) as decoders, ThreadPoolExecutor(lanes) as runners:
        # A batch is one task for a thread: a task for each file would cost some of its decoding over again.
        batches = (list(names[start : start + batch_size]) for start in range(0, len(names), batch_size))
        decoded = _run_ahead(decoders, decode_batch, batches, lanes + threads)
        yield from _run_ahead(runners, predict, decoded, lanes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify; return 0, 1 if a file failed or a folder holds none, 2 if command, setting or model is at fault."""
    options = _parse(arguments)
    logging.basicConfig(level="WARNING", format=f"{_PROGRAM}: %(message)s")
    names, missing, passed_over = find_files(options.images)
    for line in [*missing, *passed_over]:
        tell(line)
    if not names:
        return 1
    try:
        settings = Settings()
        lanes = count_lanes(settings.runtime, settings.inference_threads)
        batch_size = min(settings.max_batch_size, math.ceil(len(names) / lanes))  # a few files go beside each other too
        model = _load_newest(settings, batch_size)
    except ValidationError as error:
        return _complain("; ".join(describe_faults(error)))
    except NotReadyError:  # the store has logged why
        return 2
    if options.top_k > model.num_classes:
        return _complain(f"--top-k {options.top_k}: the model tells {model.num_classes} classes apart")

    outcomes = classify_files(
        model,
        names,
        batch_size=batch_size,
        lanes=lanes,
        threads=settings.decode_threads,
        max_bytes=settings.max_upload_bytes,
        max_pixels=settings.max_image_pixels,
    )
    failed = 0
    # For a folder, and where somebody looks: None leaves it out unless standard error is a terminal.
    hidden = None if len(names) > len(options.images) else True
    with tqdm(total=len(names), unit=" images", disable=hidden) as progress:
        for batch in outcomes:
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
        description="Say what images show: for each, its name, label and probability, by tabulators.",
        epilog="APP_MODEL_DIR names the folder of versions (default: models); all APP_ settings of the model hold.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=_parse_name,
        metavar="IMAGE",
        help="a file, a folder (of its files those named as images), or - for standard input",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, as the service answers")
    parser.add_argument(
        "--top-k", type=_parse_count, default=1, metavar="N", help="how many classes to name (default: 1)"
    )
    options = parser.parse_args(arguments)
    if options.images.count(STANDARD_INPUT) > 1:
        parser.error("standard input can be read once")
    return options


def _parse_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a name is empty")
    return text


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:_MAX_DIGITS]!r} is no positive number of up to {_MAX_DIGITS} digits")
    return int(text)


def _load_newest(settings: Settings, batch_size: int) -> Model:
    store = ModelStore(settings.model_dir, make_loader(settings, batch_sizes=list_batch_sizes(batch_size)))
    asyncio.run(store.refresh())
    return store.require_model()


def _write(outcome: Outcome, top_k: int, *, as_json: bool) -> str | None:
    """Write the line for one file; none for people where the reason of a failure is all there is to say."""
    name, result = outcome
    if as_json:
        fields = result._asdict() if isinstance(result, Failure) else Classification.of(result, top_k).model_dump()
        return json.dumps({"image": name, **fields})  # in ASCII: a file's name need not be valid Unicode
    if isinstance(result, Failure):
        return None
    return "\t".join([show_name(name), *(f"{label}\t{probability:.2f}" for label, probability in result.rank(top_k))])


def _explain(error: ServiceError, remedy: str = "") -> Failure:
    return Failure(f"{error}{remedy}", KINDS[type(error)].code)


def _run_ahead(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Give the result of `work` on each item, in order, while up to `ahead` more are worked on."""
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
    """Run `main` with standard streams that may be closed, full or unable to encode a name; return the exit status."""
    try:
        prepare_streams()
        status = main()
        sys.stdout.flush()
    except OSError as error:  # standard output takes no more
        if not isinstance(error, BrokenPipeError):  # whoever read has enough, as `head` does
            _complain(f"can't write: {error.strerror}")
        discard_output()
        status = 1
    return status
