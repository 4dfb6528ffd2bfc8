"""Behaviour of app.inference.pipeline."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from app.errors import InferenceError, UploadTooLargeError
from app.images.decoders import Decoders
from app.inference.pipeline import Failure, classify_images
from tests.app.fakes import encode, make_model, tell_colours

RED, BLUE = encode("red"), encode("blue")


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with Decoders(2, max_pixels=10**6, max_bytes=10**6, timeout_seconds=10) as decoders:
        yield decoders


def test_each_image_has_an_outcome_in_order(decoders):
    """In batches, the last of which holds the rest. The source is passed on, whatever it is."""
    images = {1: RED, 2: BLUE, 3: RED}
    batches = list(classify_images(make_model(), images, images.get, decoders, batch_size=2, workers=1))
    assert [[outcome.source for outcome in batch] for batch in batches] == [[1, 2], [3]]
    assert [outcome.result.rank(1)[0][0] for batch in batches for outcome in batch] == ["red", "blue", "red"]


def test_the_pixels_are_those_of_the_service(decoders):
    """Decoded to the model's size by the same code."""
    [[outcome]] = classify_images(make_model(), [RED], lambda data: data, decoders, batch_size=1, workers=1)
    np.testing.assert_array_equal(outcome.result.image, np.full((8, 6, 3), (255, 0, 0), dtype=np.uint8))


def test_an_image_that_fails_affects_no_other(decoders):
    """Whether it can't be read, is too large or is damaged."""

    def read(source: str) -> bytes:
        if source == "missing":
            raise FileNotFoundError(2, "No such file or directory")
        if source == "large":
            raise UploadTooLargeError("it is too large")
        return RED[:60] if source == "damaged" else RED

    sources = ["good", "missing", "large", "damaged", "good"]
    (batch,) = classify_images(make_model(), sources, read, decoders, batch_size=8, workers=1)
    failures = [outcome.result for outcome in batch if isinstance(outcome.result, Failure)]
    assert [failure.code for failure in failures] == ["unreadable_file", "upload_too_large", "broken_image"]
    assert failures[0].error == "No such file or directory"
    assert [batch[index].result.rank(1)[0][0] for index in (0, 4)] == ["red", "red"]


def test_a_batch_that_the_model_fails_on_is_not_the_end(decoders):
    """Its images fail with the API's code; the next batch runs."""

    def fail_once(images):
        if not failed:
            failed.append(True)
            raise InferenceError("the model failed")
        return tell_colours(images)

    failed: list[bool] = []
    first, second = classify_images(
        make_model(fail_once), [RED, b"", RED], lambda data: data, decoders, batch_size=2, workers=1
    )
    assert [outcome.result.code for outcome in first] == ["inference_failed", "empty_upload"]
    assert second[0].result.rank(1)[0][0] == "red"


def test_decoding_goes_on_while_the_model_runs(decoders):
    """But not without bound, so that memory does not grow with the number of images."""
    read, held = [], threading.Event()

    def hold(images):
        held.wait(10)
        return tell_colours(images)

    def note(source: int) -> bytes:
        read.append(source)
        return RED

    outcomes = classify_images(make_model(hold), range(40), note, decoders, batch_size=4, workers=1)
    first = threading.Thread(target=lambda: next(outcomes))
    first.start()
    for _ in range(500):
        if len(read) >= 20:
            break
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(read) == 20  # five batches: one held, one to run next, three decoded by then
    held.set()
    first.join()
    assert [outcome.source for batch in outcomes for outcome in batch] == list(range(4, 40))
    assert len(read) == 40
