"""Behaviour of app.http.deadline: clients that disconnect, are slow or wait too long."""

import asyncio

from app.main import create_app
from app.settings import Settings
from tests.app.client import check_problem, predict
from tests.app.fakes import HeldModel, encode, make_model


def test_a_request_past_its_deadline_gets_504(make_client):
    """And its work is cancelled."""
    held = HeldModel()
    client = make_client(held, request_timeout_seconds=0.1)
    check_problem(predict(client, encode()), 504, "deadline_passed")
    held.opened.set()


def test_an_image_past_its_deadline_never_reaches_the_model(make_client):
    """It is removed from the queue, and later images are classified."""
    held = HeldModel()
    client = make_client(held, request_timeout_seconds=0.2, inference_threads=1)  # a worker that can be blocked
    check_problem(predict(client, encode()), 504, "deadline_passed")  # the worker is blocked from now on
    late = [("files", encode())] * 3
    check_problem(client.post("/predict/batch", files=late), 504, "deadline_passed")
    held.opened.set()
    assert predict(client, encode("blue")).json()["label"] == "blue"
    assert held.batches == [1, 1]


async def call(app, body_messages):
    """Call `app` as a server does; after `body_messages` the client sends nothing more."""
    sent = []

    async def receive():
        if body_messages:
            return body_messages.pop(0)
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }
    await app(scope, receive, send)
    return sent[0]["status"]


def test_an_image_of_a_disconnected_client_is_not_classified(models):
    """Whether the client disconnects during the upload or while the image waits."""
    held = HeldModel()
    one_worker = Settings(model_dir=models, inference_threads=1)  # can be blocked
    app = create_app(one_worker, load=lambda *_, **__: make_model(held))
    whole = {"type": "http.request", "body": encode()}
    half = {"type": "http.request", "body": encode(), "more_body": True}
    gone = {"type": "http.disconnect"}

    async def run():
        async with app.router.lifespan_context(app):
            await app.state.classifier.store.refresh()
            assert await call(app, [half, gone]) == 499
            first = asyncio.create_task(call(app, [whole]))
            assert await asyncio.to_thread(held.reached.wait, 10)
            assert await call(app, [whole, gone]) == 499
            held.opened.set()
            assert await first == 200

    asyncio.run(run())
    assert held.batches == [1]


def test_a_body_that_arrives_too_slowly_gets_408(models):
    """So a slow client occupies memory for a limited time only."""
    app = create_app(Settings(model_dir=models, upload_timeout_seconds=0.05), load=lambda *_, **__: make_model())
    half = {"type": "http.request", "body": b"x", "more_body": True}

    async def run():
        async with app.router.lifespan_context(app):
            await app.state.classifier.store.refresh()
            assert await call(app, [half]) == 408

    asyncio.run(run())
