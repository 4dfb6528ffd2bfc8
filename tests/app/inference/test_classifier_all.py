"""Behaviour of app.inference.classifier with several images at once."""

import asyncio

import pytest

from app.errors import QueueFullError
from app.images.decoders import Decoders
from app.inference.classifier import Classifier
from app.versions.store import ModelStore
from tests.app.fakes import HeldModel, encode, make_model, paint, tell_colours


def make_classifier(models, predict, **settings) -> Classifier:
    store = ModelStore(models, lambda folder, **_: make_model(predict, int(folder.name)))
    decoders = Decoders(1, max_pixels=10_000, max_bytes=2**20, timeout_seconds=10)
    return Classifier(store, decoders, **{"batch_sizes": [1, 2], "max_queue_size": 4} | settings)


def test_a_request_is_accepted_completely_or_not_at_all(models):
    """If the queue has no room for its last image, none is classified."""
    batches = []

    def record(images):
        batches.append(len(images))
        return tell_colours(images)

    async def run():
        classifier = make_classifier(models, record, max_queue_size=3)
        await classifier.store.refresh()
        with pytest.raises(QueueFullError):
            await classifier.classify_all(list(paint(*["red"] * 4)))
        await asyncio.sleep(0.05)
        assert batches == []
        assert len(await classifier.classify_all(list(paint(*["red"] * 3)))) == 3
        classifier.close()

    asyncio.run(run())


def test_all_images_of_a_request_get_the_same_version(models):
    """If a new version takes over between its batches, it classifies all of them."""
    held = HeldModel()

    async def run():
        classifier = make_classifier(models, held)
        await classifier.store.refresh()
        asking = asyncio.create_task(classifier.classify_all(list(paint("red", "green", "blue"))))
        assert await asyncio.to_thread(held.reached.wait, 10)
        (models / "tiny" / "2").mkdir()
        await classifier.store.refresh()
        held.opened.set()
        scores = await asking
        assert [score.model.metadata.version for score in scores] == [2, 2, 2]
        assert [score.probabilities.argmax() for score in scores] == [0, 1, 2]
        classifier.close()

    asyncio.run(run())


def test_tensors_and_uploads_share_a_batch(models):
    """All images go through the same batcher."""
    held = HeldModel()

    async def run():
        classifier = make_classifier(models, held, batch_sizes=[1, 3])
        await classifier.store.refresh()
        first = asyncio.create_task(classifier.classify(encode("red")))
        assert await asyncio.to_thread(held.reached.wait, 10)
        upload = asyncio.create_task(classifier.classify(encode("green")))
        tensors = asyncio.create_task(classifier.classify_all(list(paint("blue", "red"))))
        while len(classifier._batcher._waiting) < 3:
            await asyncio.sleep(0.01)
        held.opened.set()
        answers = [await first, await upload, *await tensors]
        assert [scores.probabilities.argmax() for scores in answers] == [0, 1, 2, 0]
        classifier.close()

    asyncio.run(run())
    assert held.batches == [1, 3]
