"""Behaviour of app.inference.classifier."""

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.errors import BrokenImageError, NotReadyError, QueueFullError, TensorError
from app.images.decoders import Decoders
from app.inference.classifier import Classifier
from app.runtime.load import Answers, Images, Probabilities
from app.versions.store import ModelStore
from tests.app.fakes import encode, make_model, tell_colours
from tests.app.process import stop_decoders

pytestmark = pytest.mark.anyio


def make_classifier(store: ModelStore, max_queue_size: int = 8) -> Classifier:
    decoders = Decoders(1, max_pixels=1_000_000, max_bytes=2**20, timeout_seconds=10)
    return Classifier(store, decoders, batch_sizes=[1, 2, 4], max_queue_size=max_queue_size)


async def test_loading_and_inference_run_outside_the_event_loop(models):
    """Each in its own thread; processes decode images."""
    threads = {}

    def note(step: str) -> None:
        threads[step] = threading.current_thread().name.rpartition("_")[0]

    def load(_: Path, **__):
        note("load")
        return make_model(predict)

    def predict(images: Images) -> Probabilities:
        note("predict")
        return tell_colours(images)

    classifier = make_classifier(ModelStore(models, load))
    await classifier.store.refresh()
    scores = await classifier.classify(encode("blue", (800, 600)))
    assert scores.probabilities.argmax() == 2
    assert threads == {"load": "model-loader", "predict": "inference"}
    classifier.close()


async def test_scores_have_the_model_that_computed_them(models):
    """After a new version takes over, its model."""
    store = ModelStore(models, lambda folder, **_: make_model(version=int(folder.name)))
    classifier = make_classifier(store)
    await store.refresh()
    assert (await classifier.classify(encode())).model.metadata.version == 1
    (models / "tiny" / "2").mkdir()
    await store.refresh()
    assert (await classifier.classify(encode())).model.metadata.version == 2
    classifier.close()


async def test_a_broken_image_frees_its_place_in_the_queue(models):
    """So bad uploads never fill the queue."""
    store = ModelStore(models, lambda *_, **__: make_model())
    classifier = make_classifier(store, max_queue_size=1)
    await store.refresh()
    for _ in range(3):
        with pytest.raises(BrokenImageError):
            await classifier.classify(encode()[:60])
    await classifier.classify(encode())
    classifier.close()


async def test_ready_means_a_model_and_room_in_the_queue(models):
    """Checked before the body is read, so that overload does not cost uploads."""
    store = ModelStore(models, lambda *_, **__: make_model())
    classifier = make_classifier(store, max_queue_size=1)
    with pytest.raises(NotReadyError):
        classifier.require_ready()
    await store.refresh()
    assert classifier.require_ready() is store.model
    with classifier._batcher.admit(), pytest.raises(QueueFullError):
        classifier.require_ready()
    classifier.close()


async def test_a_lone_image_gets_all_threads(models):
    """With several images, each has one thread, because sharing would delay both."""
    ways = []

    def run(way: str) -> Callable[[Images], Answers]:
        return lambda images: ways.append(way) or Answers(tell_colours(images))

    model = make_model()
    runtime = replace(model.runtime, predict=run("beside others"), predict_alone=run("alone"))
    classifier = make_classifier(ModelStore(models, lambda *_, **__: replace(model, runtime=runtime)))
    await classifier.store.refresh()
    await classifier.classify(encode("red"))
    with classifier._batcher.admit():
        await classifier.classify(encode("red"))
    assert ways == ["alone", "beside others"]
    classifier.close()


async def test_an_upload_is_freed_when_its_client_disconnects(models):
    """Even if its image waits behind a slow one, because no limit counts it any more."""
    classifier = make_classifier(ModelStore(models, lambda *_, **__: make_model()))
    await classifier.store.refresh()
    slow, given_up, wanted = (encode("blue", (800, 600)) for _ in range(3))
    await classifier.classify(wanted)
    stop_decoders(os.getpid())
    unheld = sys.getrefcount(given_up)
    first = asyncio.create_task(classifier.classify(slow))
    others = [asyncio.create_task(classifier.classify(given_up)) for _ in range(4)]
    last = asyncio.create_task(classifier.classify(wanted))
    await asyncio.sleep(0.01)
    assert sys.getrefcount(given_up) > unheld
    for abandoned in (first, *others):
        abandoned.cancel()
    await asyncio.wait([first, *others])
    del others, abandoned
    assert sys.getrefcount(given_up) == unheld
    assert (await last).probabilities.argmax() == 2
    classifier.close()


async def test_tensors_are_freed_when_their_client_disconnects(models):
    """Even if they wait for a thread."""
    started, opened = threading.Event(), threading.Event()
    classifier = make_classifier(ModelStore(models, lambda *_, **__: make_model()))
    slow = asyncio.create_task(classifier.run_decoding(lambda: (started.set(), opened.wait(10))))
    given_up = bytes(1000)
    unheld = sys.getrefcount(given_up)
    waiting = asyncio.create_task(classifier.run_decoding(partial(len, given_up)))
    assert await asyncio.to_thread(started.wait, 10)
    assert sys.getrefcount(given_up) > unheld
    waiting.cancel()
    await asyncio.wait([waiting])
    del waiting
    assert sys.getrefcount(given_up) == unheld
    opened.set()
    await slow
    classifier.close()


async def test_parsed_data_of_a_refused_request_is_freed_at_once(models):
    """It can be larger than the request, and the answer may take a while."""
    classifier = make_classifier(ModelStore(models, lambda *_, **__: make_model()))
    seen = []

    def refuse() -> None:
        parsed = {"x"}
        seen.append(weakref.ref(parsed))
        try:
            parsed.remove("y")
        except KeyError as error:
            raise TensorError("no y") from error

    with pytest.raises(TensorError, match="no y") as refused:
        await classifier.run_decoding(refuse)
    assert refused.value.__traceback__
    assert seen[0]() is None
    classifier.close()


async def test_closing_ends_a_decoding_that_never_finishes(models):
    """By then, its client has got 504."""
    classifier = make_classifier(ModelStore(models, lambda *_, **__: make_model()))
    await classifier.store.refresh()
    await classifier.classify(encode("blue", (800, 600)))
    stop_decoders(os.getpid())
    asking = asyncio.create_task(classifier.classify(encode("blue", (800, 600))))
    await asyncio.sleep(0.01)
    classifier.close()
    with pytest.raises(BrokenImageError):
        await asking
